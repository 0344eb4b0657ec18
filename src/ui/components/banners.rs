//! What the visitor should know: no WebGPU, a software adapter, a lost device, a refusal, a bad link, a failure.

use crate::lab::protocol::{Backend, Command, Notice};
use crate::ui::browser;
use crate::ui::state::{Phase, SessionStoreFields, use_lab};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;

#[component]
pub fn Banners(
    /// Leave out what is only good to know, such as which adapter computes.
    #[prop(optional)]
    brief: bool,
) -> impl IntoView {
    let lab = use_lab();
    let session = lab.session;
    let dismissed = RwSignal::new(false);
    view! {
        <div class="banners" role="status">
            {move || match session.phase().get() {
                Phase::Failed(reason) => Some(view! {
                    <div class="banner warn" id="banner-failed"><span class="grow">{fill("banner.failed", &[("reason", &reason)])}</span></div>
                }),
                _ => None,
            }}
            {move || session.adapter().get().filter(|_| !brief && !dismissed.get()).and_then(|facts| {
                let on_cpu = session.backend().get() == Backend::Cpu || facts.backend == "cpu";
                let has_webgpu = browser::has_webgpu();
                let text = match (on_cpu, facts.software) {
                    (true, _) if !has_webgpu => t("banner.no_webgpu").to_owned(),
                    (true, _) => noticed(&session.notice().get()?),
                    (false, true) => fill("banner.software_gpu", &[("name", &facts.name)]),
                    (false, false) => return None,
                };
                Some(view! {
                    <div class="banner" id="banner-adapter">
                        <span class="grow">{text}</span>
                        {(!has_webgpu).then(|| view! { <a href="https://caniuse.com/webgpu">{t("banner.webgpu_how")}</a> })}
                        {(on_cpu && has_webgpu).then(|| view! {
                            <button type="button" id="use-gpu" on:click=move |_| lab.send_now(Command::Start { backend: Backend::Gpu })>{t("banner.use_gpu")}</button>
                        })}
                        <button type="button" class="plain" on:click=move |_| dismissed.set(true)>{t("banner.dismiss")}</button>
                    </div>
                })
            })}
            {move || session.lost().get().map(|loss| {
                let values = [("reason", loss.reason.as_str())];
                let text = if loss.recovered { fill("banner.recovered", &values) } else { fill("banner.lost", &values) };
                view! {
                    <div class="banner warn" id="banner-lost" data-recovered=loss.recovered.to_string()>
                        <span class="grow">{text}</span>
                        <button type="button" class="plain" on:click=move |_| session.lost().set(None)>{t("banner.dismiss")}</button>
                    </div>
                }
            })}
            {move || session.refused().get().map(|refused| {
                let size = refused.nearest.as_deref().and_then(length_in);
                let bidirectional = refused.nearest.as_deref() == Some("causal off");
                let nearest = refused.nearest.map(|nearest| fill("banner.nearest", &[("nearest", &nearest)]));
                view! {
                    <div class="banner warn" id="banner-refused">
                        <span class="grow">{refusal(&refused.what, &refused.reason)} " " {nearest}</span>
                        {size.map(|n| view! {
                            <button type="button" on:click=move |_| lab.edit(|e| e.n = n)>{fill("banner.use_length", &[("n", &crate::ui::format::count(n as u64))])}</button>
                        })}
                        {bidirectional.then(|| view! {
                            <button type="button" on:click=move |_| lab.edit(|e| e.causal = false)>{t("banner.use_bidirectional")}</button>
                        })}
                        <button type="button" class="plain" on:click=move |_| session.refused().set(None)>{t("banner.dismiss")}</button>
                    </div>
                }
            })}
            {move || {
                let complaints = session.complaints().get();
                (!complaints.is_empty()).then(|| view! {
                    <div class="banner warn" id="banner-link">
                        <div class="grow">{t("banner.link")}<ul>{complaints.into_iter().map(|c| view! { <li>{c.to_string()}</li> }).collect_view()}</ul></div>
                        <button type="button" class="plain" on:click=move |_| session.complaints().set(Vec::new())>{t("banner.dismiss")}</button>
                    </div>
                })
            }}
            {move || session.progress().get().map(|(what, done, total)| view! {
                <div class="banner" id="banner-progress">
                    <span>{what}</span><progress max=total prop:value=done></progress>
                    <button type="button" class="plain" on:click=move |_| lab.send_now(Command::Cancel)>{t("banner.cancel")}</button>
                </div>
            })}
        </div>
    }
}

fn noticed(notice: &Notice) -> String {
    match notice {
        Notice::SoftwareAdapter { name } => fill("notice.software_adapter", &[("name", name)]),
        Notice::NoGpu { reason } => fill("notice.no_gpu", &[("reason", reason)]),
        Notice::WentAway => t("notice.went_away").to_owned(),
    }
}

/// A refusal as a sentence; most reasons name what is refused themselves.
fn refusal(what: &str, reason: &str) -> String {
    let reason = reason.trim_end_matches('.');
    if reason.starts_with(what) {
        format!("{reason}.")
    } else {
        fill("banner.refused", &[("what", what), ("reason", reason)])
    }
}

/// The length that a refusal's `nearest` proposes, such as "4,096 tokens".
fn length_in(nearest: &str) -> Option<usize> {
    let digits: String = nearest
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(|c| c.is_ascii_digit() || *c == ',')
        .filter(|c| *c != ',')
        .collect();
    digits.parse().ok().filter(|n| crate::ui::geometry::LENGTHS.contains(n))
}
