//! What is known of characters. Natively it comes from tables of two crates. In the page it is asked of the browser, whose regular
//! expressions and normalisation know the same: the tables would be 150 KB of what a visitor loads.

/// Of any alphabet.
pub fn is_letter(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphabetic() } else { tables::is(Kind::Letter, c) }
}

/// Digits, and signs that mean numbers.
pub fn is_number(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_digit() } else { tables::is(Kind::Number, c) }
}

/// All that ASCII has that is neither a letter, a digit nor a control; elsewhere what Unicode calls punctuation.
pub fn is_punctuation(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_punctuation() } else { tables::is(Kind::Punctuation, c) }
}

/// Controls, marks of format, and what is no character.
pub fn is_other(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_control() } else { tables::is(Kind::Other, c) }
}

/// A text without the marks that stand on its letters.
pub fn without_marks(text: String) -> String {
    if text.is_ascii() { text } else { tables::without_marks(&text) }
}

#[derive(Clone, Copy)]
enum Kind {
    Letter,
    Number,
    Punctuation,
    Other,
}

#[cfg(not(target_arch = "wasm32"))]
mod tables {
    use super::Kind;
    use unicode_normalization::UnicodeNormalization;
    use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

    pub fn is(kind: Kind, c: char) -> bool {
        c.general_category_group()
            == match kind {
                Kind::Letter => GeneralCategoryGroup::Letter,
                Kind::Number => GeneralCategoryGroup::Number,
                Kind::Punctuation => GeneralCategoryGroup::Punctuation,
                Kind::Other => GeneralCategoryGroup::Other,
            }
    }

    pub fn without_marks(text: &str) -> String {
        text.nfd().filter(|c| c.general_category() != GeneralCategory::NonspacingMark).collect()
    }
}

#[cfg(target_arch = "wasm32")]
mod tables {
    use super::Kind;
    use js_sys::{JsString, RegExp};

    thread_local! {
        static KINDS: [RegExp; 4] = ["L", "N", "P", "C"].map(|group| RegExp::new(&format!("\\p{{{group}}}"), "u"));
        static MARKS: RegExp = RegExp::new("\\p{Mn}", "gu");
    }

    pub fn is(kind: Kind, c: char) -> bool {
        KINDS.with(|kinds| kinds[kind as usize].test(c.encode_utf8(&mut [0; 4])))
    }

    pub fn without_marks(text: &str) -> String {
        let apart = JsString::from(text).normalize("NFD");
        MARKS.with(|marks| apart.replace_by_pattern(marks, "")).into()
    }
}
