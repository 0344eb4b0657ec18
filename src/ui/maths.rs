//! The formulas of the methods: a file of MathML for each in `web/maths/`, fetched when a sheet is opened.

/// Where the formulas of a variant lie, from the page's own folder.
pub fn path(id: &str) -> String {
    format!("maths/{id}.xml")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of the elements of a text in order, or what is wrong with it: elements are closed in order, and nothing is written
    /// that XML does not know.
    fn elements(xml: &str) -> Result<Vec<&str>, String> {
        let (mut open, mut seen) = (Vec::new(), Vec::new());
        let mut parts = xml.split('<');
        let before = parts.next().unwrap_or_default();
        if !before.trim().is_empty() {
            return Err(format!("{before:?} stands before the first element"));
        }
        for part in parts {
            let (tag, text) = part.split_once('>').ok_or_else(|| format!("<{part} does not end"))?;
            for entity in text.split('&').skip(1) {
                if !["amp;", "lt;", "gt;"].iter().any(|known| entity.starts_with(known)) {
                    return Err(format!("&{entity} is not known"));
                }
            }
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name) {
                    return Err(format!("</{name}> closes nothing"));
                }
            } else {
                let name = tag.trim_end_matches('/').split(' ').next().unwrap_or_default();
                if !tag.matches('"').count().is_multiple_of(2) {
                    return Err(format!("<{tag}> has an open quotation"));
                }
                seen.push(name);
                if !tag.ends_with('/') {
                    open.push(name);
                }
            }
            if open.is_empty() && !text.trim().is_empty() {
                return Err(format!("{text:?} stands outside"));
            }
        }
        if open.is_empty() { Ok(seen) } else { Err(format!("{open:?} are not closed")) }
    }

    #[test]
    fn every_variant_has_formulas_that_can_be_read() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        let mut texts = std::collections::BTreeSet::new();
        for variant in crate::attention::ALL {
            let file = folder.join(path(variant.id));
            let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            // Many machines have no font with the italic Greek and the script letters of mathematics.
            assert!(text.chars().all(|c| (c as u32) < 0x1_0000), "{} has letters that few fonts have", variant.id);
            assert!(!text.contains("<mi>ρ") && !text.contains("<mi>σ"), "{} has italic Greek", variant.id);
            let names = elements(&text).unwrap_or_else(|e| panic!("{}: {e}", variant.id));
            let formulas = names.iter().filter(|name| **name == "math").count();
            assert!((1..=3).contains(&formulas), "{} has {formulas} formulas", variant.id);
            let known = [
                "div",
                "math",
                "mrow",
                "mi",
                "mo",
                "mn",
                "mtext",
                "mspace",
                "mfrac",
                "msqrt",
                "msub",
                "msup",
                "msubsup",
                "munder",
                "mover",
                "munderover",
            ];
            assert!(names.iter().all(|name| known.contains(name)), "{}: {names:?}", variant.id);
            assert!(texts.insert(text), "{} has the formulas of another", variant.id);
        }
    }

    #[test]
    fn broken_formulas_are_found() {
        for broken in ["<math><mi>a</math>", "<math>&alpha;</math>", "<math>", "a", "<math a=\"b></math>"] {
            assert!(elements(broken).is_err(), "{broken}");
        }
        assert_eq!(elements("<math><mspace/><mo>&lt;</mo></math>"), Ok(vec!["math", "mspace", "mo"]));
    }
}
