//! An embed's parameters: the keys of a permalink, and those that say how much of the page there is.

use super::experiment::{Complaint, Experiment, Lookup, registry};
use super::permalink;
use super::protocol::Backend;
use crate::ids::ids;

ids! {
    /// When an embed starts to compute. A page with ten embeds should not start ten of them by itself.
    Run {
        Auto = "auto",
        #[default]
        Click = "click",
        Never = "never",
    }
}

ids! {
    /// Whether things move: as the visitor's system says, always, or never.
    Motion {
        #[default]
        Auto = "auto",
        On = "on",
        Off = "off",
    }
}

/// What an embed shows beside its experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Embed {
    /// Ids of controls to show; empty means the usual ones.
    pub show: Vec<String>,
    /// Ids of controls to hide.
    pub hide: Vec<String>,
    /// The visitor cannot change the experiment.
    pub lock: bool,
    pub caption: Option<String>,
    pub run: Run,
    pub motion: Motion,
    /// `Auto` or `Cpu`.
    pub gpu: Backend,
}

const MAX_CONTROLS: usize = 64;
const MAX_CONTROL_ID_BYTES: usize = 40;
const MAX_CAPTION_BYTES: usize = 2000;

impl Embed {
    /// Whether the control with this id is to be seen.
    pub fn shows(&self, id: &str) -> bool {
        (self.show.is_empty() || self.show.iter().any(|s| s == id)) && !self.hide.iter().any(|s| s == id)
    }
}

/// Reads an embed's query string.
pub fn parse(query: &str) -> (Embed, Experiment, Vec<Complaint>) {
    parse_with(query, &registry)
}

/// [`parse`] with another table of variants.
pub fn parse_with(query: &str, lookup: Lookup) -> (Embed, Experiment, Vec<Complaint>) {
    let (pairs, mut complaints) = permalink::pairs(query);
    let mut embed = Embed::default();
    let mut rest = Vec::new();
    for (key, value) in pairs {
        match &*key {
            "show" => embed.show = controls(&key, &value, &mut complaints),
            "hide" => embed.hide = controls(&key, &value, &mut complaints),
            "lock" => match &*value {
                "1" | "true" => embed.lock = true,
                "0" | "false" => embed.lock = false,
                _ => complaints.push(Complaint::new(&key, &value, "1 or 0", "0")),
            },
            "caption" => {
                let mut caption = value.into_owned();
                if caption.len() > MAX_CAPTION_BYTES {
                    let takes = format!("at most {MAX_CAPTION_BYTES} bytes");
                    complaints.push(Complaint::new(&key, &caption, takes, "the beginning"));
                    crate::complaint::cut(&mut caption, MAX_CAPTION_BYTES);
                }
                embed.caption = Some(caption);
            }
            "run" => match Run::from_id(&value) {
                Some(run) => embed.run = run,
                None => complaints.push(Complaint::new(&key, &value, "one of auto, click, never", embed.run.id())),
            },
            "motion" => match &*value {
                "auto" | "on" | "off" => embed.motion = Motion::from_id(&value).unwrap_or_default(),
                "1" => embed.motion = Motion::On,
                "0" => embed.motion = Motion::Off,
                _ => complaints.push(Complaint::new(&key, &value, "one of auto, on, off", embed.motion.id())),
            },
            "gpu" => match &*value {
                "auto" => embed.gpu = Backend::Auto,
                "cpu" => embed.gpu = Backend::Cpu,
                _ => complaints.push(Complaint::new(&key, &value, "auto or cpu", "auto")),
            },
            _ => rest.push((key, value)),
        }
    }
    let experiment = permalink::apply(&rest, lookup, &mut complaints);
    (embed, experiment, permalink::few(complaints))
}

/// A comma-separated list of ids.
fn controls(key: &str, value: &str, complaints: &mut Vec<Complaint>) -> Vec<String> {
    let good = |id: &&str| {
        id.len() <= MAX_CONTROL_ID_BYTES && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let ids: Vec<&str> = value.split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
    let kept: Vec<String> = ids.iter().copied().filter(good).take(MAX_CONTROLS).map(String::from).collect();
    if kept.len() < ids.len() {
        let takes = "ids of controls, separated by commas";
        complaints.push(Complaint::new(key, value, takes, kept.join(",")));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::Param;

    fn table(id: &str) -> Option<&'static [Param]> {
        (id == "full").then_some(&[])
    }

    #[test]
    fn embed_reads_its_keys_and_leaves_the_rest() {
        let (embed, e, complaints) = parse_with(
            "?v=1&n=128&show=plate,legend&hide=legend&lock=1&caption=A+b&run=auto&motion=off&gpu=cpu",
            &table,
        );
        assert_eq!(complaints, []);
        assert_eq!(e.n, 128);
        assert!(embed.lock && embed.shows("plate") && !embed.shows("legend") && !embed.shows("share"));
        assert_eq!((embed.run, embed.motion, embed.gpu), (Run::Auto, Motion::Off, Backend::Cpu));
        assert_eq!(embed.caption.as_deref(), Some("A b"));
    }

    #[test]
    fn embed_names_what_it_cannot_take() {
        let (embed, _, complaints) = parse_with("lock=maybe&run=now&gpu=two&motion=9&show=a%20b,c&nonsense=1", &table);
        let keys: Vec<_> = complaints.iter().map(|c| c.key.as_str()).collect();
        assert_eq!(keys, ["lock", "run", "gpu", "motion", "show", "nonsense"]);
        assert_eq!(embed.show, ["c"]);
        assert_eq!((embed.lock, embed.run, embed.gpu), (false, Run::Click, Backend::Auto));
    }
}
