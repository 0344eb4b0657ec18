//! The page's sentences, by key, from the catalogues in `assets/texts/`: a translation is one more file there and one more
//! line in [`LANGUAGES`].

use std::collections::HashMap;
use std::sync::OnceLock;

/// Language codes and their catalogues; the first is the one that every key must be in.
pub const LANGUAGES: &[(&str, &str)] =
    &[("en", include_str!("../../assets/texts/en.json")), ("de", include_str!("../../assets/texts/de.json"))];

static CATALOGUE: OnceLock<HashMap<String, String>> = OnceLock::new();

/// Chooses the language, once, before the first text is asked for; what it lacks comes from the first catalogue.
pub fn use_language(code: &str) {
    let mut texts = parse(LANGUAGES[0].1);
    if let Some((_, chosen)) = LANGUAGES.iter().find(|(known, _)| *known == code) {
        texts.extend(parse(chosen));
    }
    // A second call changes nothing: a page has one language until it is opened anew.
    let _ = CATALOGUE.set(texts);
}

/// The text under this key; the key itself where there is none, so that a lack is seen.
pub fn t(key: &'static str) -> &'static str {
    lookup(key).unwrap_or(key)
}

/// The text under a key made at run time, where there is one.
pub fn lookup(key: &str) -> Option<&'static str> {
    CATALOGUE.get_or_init(|| parse(LANGUAGES[0].1)).get(key).map(String::as_str)
}

/// The text under this key, with `{name}` replaced by each value.
pub fn fill(key: &'static str, values: &[(&str, &str)]) -> String {
    values.iter().fold(t(key).to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

fn parse(json: &str) -> HashMap<String, String> {
    crate::json::read(json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{name}` in a text, sorted.
    fn blanks(text: &str) -> Vec<&str> {
        let mut found: Vec<&str> = text.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn every_catalogue_has_the_keys_of_the_first_and_fills_them_with_the_same() {
        let first: HashMap<String, String> = serde_json::from_str(LANGUAGES[0].1).unwrap();
        assert!(first.len() > 100);
        for (code, json) in LANGUAGES {
            let texts: HashMap<String, String> = serde_json::from_str(json).unwrap();
            for key in texts.keys() {
                assert!(first.contains_key(key), "{code}: {key} is in no other catalogue");
            }
            for (key, text) in &first {
                let translated = texts.get(key).unwrap_or_else(|| panic!("{code}: {key} is missing"));
                assert_eq!(blanks(translated), blanks(text), "{code}: {key}");
            }
        }
    }

    /// Keys are written as `t("...")` and `fill("...", ...)`; each must be in the catalogue.
    #[test]
    fn every_key_in_the_sources_has_a_text() {
        let first = parse(LANGUAGES[0].1);
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/ui"))];
        let mut seen = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.ends_with("texts.rs") {
                    let source = std::fs::read_to_string(&path).unwrap();
                    for opening in [" t(\"", "(t(\"", "{t(\"", "!t(\"", "=t(\"", "fill(\"", "fill(\n"] {
                        for rest in source.split(opening).skip(1) {
                            let rest = rest.trim_start().trim_start_matches('"');
                            let key = rest.split('"').next().unwrap();
                            assert!(first.contains_key(key), "{}: no text for {key}", path.display());
                            seen += 1;
                        }
                    }
                }
            }
        }
        assert!(seen > 20, "only {seen} keys were found; is the search still right?");
    }
}
