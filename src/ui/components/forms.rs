//! What sparse costs here: one pattern in blocks, pair by pair and as a mask, raced against each other and against full attention.

use super::numbers::Origin;
use super::sweep::LengthMenu;
use crate::attention;
use crate::lab::experiment::Experiment;
use crate::lab::protocol::{Command, FormRow, Provenance, Way};
use crate::ui::format;
use crate::ui::state::{Forms, Lab, Phase, SessionStoreFields, setup_of, use_lab};
use crate::ui::texts::{fill, t};
use leptos::prelude::*;

/// Block sizes that are raced, tokens.
const BLOCKS: [usize; 4] = [16, 32, 64, 128];
/// A pattern with a part of each kind, for who comes without one.
const USUAL: &str = "longformer";

/// Variants that are attention over a pattern and nothing else, with the parameters at hand.
fn patterns(e: &Experiment) -> Vec<&'static str> {
    // Whether there is one does not hang on the sizes.
    let small = Experiment { n: 64, batch: 1, heads: 1, ..e.clone() };
    let has_one = |v: &&&attention::Variant| v.pattern(&setup_of(&small, v.id)).is_some();
    attention::ALL.iter().filter(has_one).map(|v| v.id).collect()
}

fn begin(lab: Lab, variant: &str, length: usize) {
    let experiment = Experiment { n: length, ..lab.session.experiment().get_untracked() };
    lab.session.forms().set(Forms { running: true, variant: variant.into(), length, ..Forms::default() });
    let command = Command::Forms { experiment: Box::new(experiment), variant: variant.into(), blocks: BLOCKS.into() };
    lab.send_now(command);
}

#[component]
pub fn FormsRace() -> impl IntoView {
    let lab = use_lab();
    let session = lab.session;
    let known = lab.of(patterns);
    let picked = RwSignal::new(None::<String>);
    let contenders = lab.of(|e| e.variants.clone());
    let variant = Memo::new(move |_| {
        let known = known.get();
        let wanted = picked.get().into_iter().chain(contenders.get());
        wanted.into_iter().find(|id| known.contains(&id.as_str())).unwrap_or_else(|| USUAL.into())
    });
    let length = RwSignal::new(1024_usize);
    let position = RwSignal::new(2_usize);
    let block = Memo::new(move |_| BLOCKS[position.get().min(BLOCKS.len() - 1)]);
    let running = Memo::new(move |_| session.forms().with(|forms| forms.running));
    let busy = Memo::new(move |_| {
        session.phase().with(|phase| *phase != Phase::Ready) || session.sweep().with(|sweep| sweep.running)
    });
    view! {
        <section class="speed forms" id="forms" aria-labelledby="forms-title">
            <div class="setup">
                <h2 id="forms-title">{t("forms.title")}</h2>
                <p class="quiet">{t("forms.about")}</p>
                <label class="control">{t("forms.pattern")}
                    <select id="forms-pattern" prop:value=move || { known.track(); variant.get() }
                        on:change:target=move |ev| picked.set(Some(ev.target().value()))>
                        {move || known.get().into_iter().map(|id| {
                            let selected = id == variant.get_untracked();
                            view! { <option value=id selected=selected>{name_of(id)}</option> }
                        }).collect_view()}
                    </select>
                </label>
                <label class="inline">{t("figures.length")}<LengthMenu value=length id="forms-length"/></label>
                <div class="progress">
                    <Show when=move || running.get() fallback=move || view! {
                        <button type="button" class="primary" id="forms-start" disabled=move || busy.get()
                            on:click=move |_| begin(lab, &variant.get_untracked(), length.get_untracked())>{t("forms.start")}</button>
                    }>
                        <button type="button" id="forms-cancel" on:click=move |_| lab.send_now(Command::Cancel)>{t("sweep.cancel")}</button>
                        <progress max=move || session.forms().with(|f| f.total.max(1)) prop:value=move || session.forms().with(|f| f.done)
                            aria-label=t("forms.progress")></progress>
                    </Show>
                    <p class="quiet" id="forms-status" role="status">{move || session.forms().with(status)}</p>
                </div>
            </div>
            <div>
                <div class="findings" id="forms-findings" aria-live="polite">
                    {move || session.forms().with(|forms| say(forms, block.get())).into_iter().map(|said| view! { <p>{said}</p> }).collect_view()}
                </div>
                <Show when=move || session.forms().with(|forms| !forms.rows.is_empty())>
                    <label class="inline size">{t("forms.block")}
                        <input type="range" id="forms-block" min="0" max=BLOCKS.len() - 1 step="1"
                            aria-valuetext=move || block.get().to_string() prop:value=move || position.get()
                            on:input:target=move |ev| if let Ok(at) = ev.target().value().parse() { position.set(at) }/>
                        <output for="forms-block">{move || fill("forms.tokens", &[("block", &block.get().to_string())])}</output>
                    </label>
                    <Ways block/>
                </Show>
            </div>
        </section>
    }
}

#[component]
fn Ways(block: Memo<usize>) -> impl IntoView {
    let lab = use_lab();
    let rows = move || {
        let rows = lab.session.forms().with(|forms| forms.rows.clone());
        let shares = rows.iter().flat_map(|row| [row.scored, ratio(&rows, row)]).flatten();
        let most = shares.fold(1.0, f64::max);
        rows.iter().map(|row| line(row, ratio(&rows, row), most, block)).collect_view()
    };
    view! {
        <div class="results">
            <table id="forms-table">
                <thead><tr>
                    <th scope="col">{t("forms.how")}</th>
                    <th scope="col">{t("forms.scored")}<br/><Origin of=Provenance::Computed/></th>
                    <th scope="col">{t("forms.ratio")}<br/><Origin of=Provenance::Measured/></th>
                    <th scope="col">{t("figures.time")}<br/><Origin of=Provenance::Measured/></th>
                    <th scope="col">{t("forms.blocks")}<br/><Origin of=Provenance::Computed/></th>
                    <th scope="col">{t("figures.flops")}<br/><Origin of=Provenance::Computed/></th>
                    <th scope="col">{t("figures.bytes")}<br/><Origin of=Provenance::Computed/></th>
                    <th scope="col">{t("forms.error")}<br/><Origin of=Provenance::Measured/></th>
                </tr></thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
}

/// One way: two bars of one scale, shares of full attention, and its figures.
fn line(row: &FormRow, ratio: Option<f64>, most: f64, block: Memo<usize>) -> impl IntoView + use<> {
    let bar = |share: Option<f64>, kind: &'static str| {
        let text = share.map_or("–".into(), format::percent);
        let width = format!("inline-size: {:.2}%", 100.0 * share.unwrap_or(0.0) / most);
        view! { <td class="share"><span>{text}</span><span class="track" aria-hidden="true">{share.map(|_| view! { <span class=kind style=width></span> })}</span></td> }
    };
    let own = row.block.filter(|_| row.way == Way::Blocks);
    // Blocks of other sizes stand back.
    let chosen = move || own.map(|own| (own == block.get()).to_string());
    let figures = match &row.refused {
        Some(reason) => view! { <td class="wide" colspan="5">{reason.clone()}</td> }.into_any(),
        None => view! {
            <td title=row.time.as_ref().map(spread)>{row.time.as_ref().map_or("–".into(), |time| format::milliseconds(time.median))}</td>
            <td>{row.blocks.map_or("–".into(), format::percent)}</td>
            <td>{format::flops(row.flops)}</td>
            <td>{format::bytes(row.bytes_peak)}</td>
            <td>{row.error.map_or("–".into(), |e| format::significant(e.rms_ratio, 2))}</td>
        }
        .into_any(),
    };
    view! {
        <tr data-way=row.way.id() data-block=row.block data-chosen=chosen>
            <th scope="row">{way_name(row)}</th>
            {bar(row.scored, "bar scored")}
            {bar(ratio, "bar time")}
            {figures}
        </tr>
    }
}

fn spread(time: &crate::lab::protocol::Timing) -> String {
    format!("{} – {}, {}× {}", format::milliseconds(time.min), format::milliseconds(time.max), time.repeats, time.how)
}

fn way_name(row: &FormRow) -> String {
    match row.way {
        Way::Full => t("forms.full").into(),
        Way::Masked => t("forms.masked").into(),
        Way::Gather => t("forms.gather").into(),
        Way::Blocks => fill("forms.in_blocks", &[("block", &row.block.unwrap_or_default().to_string())]),
        Way::Own => t("forms.own").into(),
    }
}

fn name_of(id: &str) -> &str {
    attention::find(id).map_or(id, |variant| variant.name)
}

/// Time as a share of that of full attention.
fn ratio(rows: &[FormRow], row: &FormRow) -> Option<f64> {
    let full = rows.iter().find(|row| row.way == Way::Full)?.time.as_ref()?;
    Some(row.time.as_ref()?.median / full.median)
}

/// A percentage that no line breaks apart.
fn percent(share: f64) -> String {
    format::percent(share).replace(' ', "\u{a0}")
}

/// What the race says, as far as it is known.
fn say(forms: &Forms, block: usize) -> Vec<String> {
    let rows = &forms.rows;
    let Some(density) = rows.first().map(|row| row.density) else { return vec![] };
    let (name, n, block_text) = (name_of(&forms.variant), format::count(forms.length as u64), block.to_string());
    let in_blocks = rows.iter().find(|row| row.way == Way::Blocks && row.block == Some(block));
    let mut said = fill("forms.density", &[("name", name), ("n", &n), ("pairs", &percent(density))]);
    if let Some(visited) = in_blocks.and_then(|row| row.blocks) {
        said += " ";
        said += &fill("forms.visited", &[("block", &block_text), ("blocks", &percent(visited))]);
    }
    let share = |row: Option<&FormRow>| row.and_then(|row| ratio(rows, row)).map(percent);
    let of = |way| rows.iter().find(|row: &&FormRow| row.way == way);
    let mut sentences = vec![said];
    if let Some(time) = share(in_blocks) {
        let others = [share(of(Way::Gather)), share(of(Way::Masked))].map(|share| share.unwrap_or_else(|| "–".into()));
        let values = [("block", &*block_text), ("time", &time), ("gather", &others[0]), ("masked", &others[1])];
        sentences.push(fill("forms.took", &values));
    }
    sentences
}

fn status(forms: &Forms) -> String {
    let (done, total) = (forms.done.to_string(), forms.total.to_string());
    let values = [("done", done.as_str()), ("total", total.as_str())];
    match &forms.refused {
        Some(reason) => fill("forms.refused", &[("name", name_of(&forms.variant)), ("reason", reason)]),
        None if forms.running => fill("forms.running", &values),
        None if forms.cancelled => t("forms.cancelled").into(),
        None if !forms.rows.is_empty() => t("forms.done").into(),
        None => String::new(),
    }
}
