//! Tokenizers read from files: texts to ids and back, and files that are refused.

use attention_lab::reading::tokenizer::{MOST_TEXT_BYTES, Tokenizer};
use serde_json::{Value, json};

/// Byte-level pairs over all visible letters, the space and the line end, with some merges, as files write them.
fn pairs(merges: &[[&str; 2]], spaced: bool) -> Value {
    let mut tokens: Vec<String> = (33..=126u8).map(|b| char::from(b).to_string()).collect();
    tokens.extend(["Ġ", "Ċ", "Ã", "©", "â", "Ĥ", "¬"].map(String::from));
    tokens.extend(merges.iter().map(|pair| pair.concat()));
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let merges: Vec<Value> =
        merges.iter().map(|pair| if spaced { json!(pair.join(" ")) } else { json!(pair) }).collect();
    json!({
        "added_tokens": [{"id": tokens.len(), "content": "<|endoftext|>", "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    })
}

const MERGES: [[&str; 2]; 6] = [["l", "l"], ["e", "ll"], ["h", "ell"], ["Ġ", "h"], ["Ã", "©"], ["a", "b"]];

fn labels(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    tokenizer.encode(text).unwrap().into_iter().map(|id| tokenizer.label(id)).collect()
}

#[test]
fn pairs_of_lower_rank_go_first() {
    for spaced in [false, true] {
        let tokenizer = Tokenizer::parse(&pairs(&MERGES, spaced).to_string()).unwrap();
        assert_eq!(labels(&tokenizer, "hello hello"), ["hell", "o", " ", "hell", "o"]);
        assert_eq!(labels(&tokenizer, " hat"), [" h", "a", "t"]);
        assert_eq!(labels(&tokenizer, "ababb"), ["ab", "ab", "b"]);
        assert_eq!(labels(&tokenizer, "llll"), ["ll", "ll"]);
    }
}

#[test]
fn a_word_without_an_end_takes_no_time() {
    let tokenizer = Tokenizer::parse(&pairs(&MERGES, true).to_string()).unwrap();
    let word: String = (0..MOST_TEXT_BYTES).map(|i| ["h", "e", "l", "l", "a", "b"][i * i % 6]).collect();
    let began = std::time::Instant::now();
    let ids = tokenizer.encode(&word).unwrap();
    assert_eq!(tokenizer.decode(&ids), word);
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    let many: Vec<Value> = (0..3000).map(|id| json!({"id": id, "content": format!("a{id}")})).collect();
    let mut file = pairs(&MERGES, true);
    file["added_tokens"] = json!(many);
    assert!(Tokenizer::parse(&file.to_string()).unwrap_err().to_string().contains("added tokens"));
}

#[test]
fn texts_come_back_from_their_ids() {
    let tokenizer = Tokenizer::parse(&pairs(&MERGES, true).to_string()).unwrap();
    for text in ["hello, world!", "caf\u{e9} for 3 \u{20ac}", "  two\n\n lines", "", "it's"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()), text);
    }
    let cut = tokenizer.encode("\u{20ac}").unwrap();
    assert_eq!(cut.len(), 3);
    assert_eq!(tokenizer.decode(&cut[..1]), "\u{fffd}");
    assert_eq!(labels(&tokenizer, "\u{20ac}"), ["E2", "82", "AC"], "parts of a character are numbers");
    assert_eq!(tokenizer.decode(&[u32::MAX]), "");
}

#[test]
fn tokens_that_stand_for_themselves_are_not_split() {
    let tokenizer = Tokenizer::parse(&pairs(&MERGES, true).to_string()).unwrap();
    let end = tokenizer.vocabulary() as u32 - 1;
    let ids = tokenizer.encode("ab<|endoftext|>ab").unwrap();
    assert_eq!((ids.len(), ids[1], ids[0]), (3, end, ids[2]));
    assert_eq!(tokenizer.decode(&ids), "ab<|endoftext|>ab");
}

fn pieces(lowercase: bool) -> Value {
    let words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "un",
        "##aff",
        "##able",
        "##ord",
        "the",
        "the##",
        "\u{e9}t\u{e9}",
        "ete",
        "!",
        "\u{4e2d}",
        "\u{6587}",
        "The",
        "a",
        "##a",
    ];
    let vocab: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let added: Vec<Value> =
        words[..5].iter().enumerate().map(|(id, word)| json!({"id": id, "content": word})).collect();
    json!({
        "truncation": {"max_length": 2},
        "padding": {"strategy": {"Fixed": 128}},
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "lowercase": lowercase, "strip_accents": null},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

#[test]
fn words_are_made_of_their_longest_pieces() {
    let tokenizer = Tokenizer::parse(&pieces(true).to_string()).unwrap();
    let framed = |inner: &[&str]| {
        let all = ["[CLS]"].iter().chain(inner).chain(&["[SEP]"]).map(|x| (*x).to_owned());
        all.collect::<Vec<_>>()
    };
    for (text, want) in [
        ("Unaffordable the!", &["un", "##aff", "##ord", "##able", "the", "!"][..]),
        ("unaffordablex", &["[UNK]"]),
        ("\u{c9}t\u{e9} the\u{301}", &["ete", "the"]),
        ("\u{4e2d}\u{6587}", &["\u{4e2d}", "\u{6587}"]),
        ("the\u{0}\u{7}the", &["[UNK]"]),
        ("the\t[MASK]the", &["the", "[MASK]", "the"]),
        ("", &[]),
    ] {
        assert_eq!(labels(&tokenizer, text), framed(want), "{text:?}");
    }
    assert_eq!(labels(&tokenizer, &"a".repeat(101)), framed(&["[UNK]"]));
    assert_eq!(labels(&tokenizer, &"a".repeat(100)).len(), 102);
    let ids = tokenizer.encode("unaffordable the").unwrap();
    assert_eq!(tokenizer.decode(&ids[1..ids.len() - 1]), "unaffordable the");
}

#[test]
fn capitals_and_accents_are_kept_where_the_model_knows_them() {
    let tokenizer = Tokenizer::parse(&pieces(false).to_string()).unwrap();
    assert_eq!(labels(&tokenizer, "The \u{e9}t\u{e9}")[1..3], ["The", "\u{e9}t\u{e9}"]);
}

#[test]
fn what_cannot_be_used_is_refused() {
    let refused = |file: Value| Tokenizer::parse(&file.to_string()).unwrap_err().to_string();
    assert!(refused(json!({})).contains("model"));
    assert!(refused(json!({"model": {"type": "Unigram", "vocab": {"a": 0}}})).contains("Unigram"));
    assert!(refused(json!({"model": {"type": "BPE", "vocab": {}}})).contains("0 tokens"));
    assert!(refused(json!({"model": {"type": "BPE", "vocab": {"a": 4_000_000_000u32}}})).contains("4000000000"));
    assert!(refused(json!({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})).contains("ByteLevel"));
    assert!(refused(json!({"model": {"type": "WordPiece", "vocab": {"a": 0}}})).contains("[UNK]"));
    let mut file = pairs(&MERGES, true);
    file["model"]["merges"] = json!(["zq x"]);
    assert!(refused(file.clone()).contains("\"zqx\""));
    file["model"]["merges"] = json!(["zq"]);
    assert!(refused(file).contains("\"zq\""));
    let tokenizer = Tokenizer::parse(&pairs(&MERGES, true).to_string()).unwrap();
    assert!(tokenizer.encode(&"a".repeat(MOST_TEXT_BYTES + 1)).unwrap_err().to_string().contains("65537"));
}
