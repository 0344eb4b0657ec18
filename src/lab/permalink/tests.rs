use super::*;
use crate::attention::{Param, ParamKind, Params};
use crate::lab::train::setup::task_ids;
use std::collections::BTreeMap;

static WINDOWED: &[Param] = &[
    Param {
        name: "window",
        kind: ParamKind::Int { min: 1, max: 512, default: |n| (n / 8) as u32 },
        meaning: "Width of the window.",
    },
    Param { name: "wide", kind: ParamKind::Bool { default: false }, meaning: "Whether it is wide." },
];
static CHOOSING: &[Param] = &[Param {
    name: "feature_map",
    kind: ParamKind::Choice { options: &["elu+1", "relu"], default: "elu+1" },
    meaning: "The feature map.",
}];

fn table(id: &str) -> Option<&'static [Param]> {
    match id {
        "full" => Some(&[]),
        "windowed" | "other" => Some(WINDOWED),
        "linear" => Some(CHOOSING),
        _ => None,
    }
}

/// xorshift64*, enough to make test inputs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n
    }
}

fn experiment(r: &mut Random) -> Experiment {
    let ids = ["full", "windowed", "linear", "other"];
    let first = r.below(4);
    let variants: Vec<String> = (0..1 + r.below(3)).map(|i| ids[(first + i) % 4].into()).collect();
    let n = 1 + r.below(MAX_LENGTH);
    let heads = 1 + r.below(MAX_HEADS);
    let view = View::ALL[r.below(View::ALL.len())];
    let tasks = task_ids();
    let mut train = TrainSetup::usual(&tasks[r.below(tasks.len())]);
    for number in NUMBERS {
        if r.below(2) == 1 {
            (number.set)(&mut train, number.range.start() + r.below(number.range.end() - number.range.start() + 1));
        }
    }
    train.block = Block::ALL[r.below(2)];
    train.cross = Cross::ALL[r.below(2)];
    train.rate = [0.002, 1e-5, 0.3][r.below(3)];
    train.pace = [Pace::Steps, Pace::Seconds][r.below(2)];
    train.against = Against::ALL[r.below(4)];
    let shown = Experiment { view, n, train: train.clone(), ..Default::default() };
    let mut params: BTreeMap<String, Params> = BTreeMap::new();
    for id in &variants {
        for param in table(id).unwrap() {
            let value = match param.kind {
                ParamKind::Int { min, max, .. } => Value::Int(min + r.below((max - min + 1) as usize) as u32),
                ParamKind::Bool { .. } => Value::Bool(r.below(2) == 1),
                ParamKind::Choice { options, .. } => Value::Choice(options[r.below(options.len())].into()),
                ParamKind::Text { default, .. } => Value::Choice(default.into()),
            };
            // A value equal to the default is not written, so it does not come back.
            if r.below(2) == 1 && value != shown.usual_value(param) {
                params.entry(id.clone()).or_default().0.insert(param.name.into(), value);
            }
        }
    }
    let alphabet: Vec<char> = "aé &=+%?#,;\0\n\u{301}\u{202e}漢👩🏽‍🚀שא".chars().collect();
    let text = (r.below(2) == 1).then(|| (0..r.below(40)).map(|_| alphabet[r.below(alphabet.len())]).collect());
    Experiment {
        view,
        variants,
        params,
        n,
        batch: 1 + r.below(MAX_BATCH),
        heads,
        dim: 1 + r.below(MAX_DIM),
        causal: r.below(2) == 1,
        layer: r.below(MAX_LAYER + 1),
        head: r.below(heads),
        seed: r.next(),
        weights: WeightsFrom::ALL[r.below(3)],
        precision: Precision::ALL[r.below(2)],
        text,
        split: Split::ALL[r.below(2)],
        pool: Pool::ALL[r.below(2)],
        scale: Scale::ALL[r.below(3)],
        theme: Theme::ALL[r.below(3)],
        lang: ["en", "de", "pt-BR"][r.below(3)].into(),
        train,
    }
}

#[test]
fn a_permalink_comes_back_as_it_was() {
    let mut r = Random(7);
    for _ in 0..500 {
        let e = experiment(&mut r);
        let link = write_with(&e, &table);
        assert!(link.query.starts_with("v=1"), "{}", link.query);
        let (back, complaints) = parse_with(&link.query, &table);
        assert_eq!(complaints, [], "{}", link.query);
        assert_eq!(back, e, "{}", link.query);
    }
}

#[test]
fn only_what_differs_is_written() {
    assert_eq!(write_with(&Experiment::default(), &table).query, "v=1");
    let (e, _) = parse_with("variant=windowed&n=128&window=16", &table);
    assert_eq!(write_with(&e, &table).query, "v=1&variant=windowed&n=128");
    let (e, _) = parse_with("variant=windowed,full&windowed.window=20", &table);
    assert_eq!(write_with(&e, &table).query, "v=1&variant=windowed,full&windowed.window=20");
}

#[test]
fn shapes_of_ones_own_are_not_those_of_a_trained_model() {
    for (query, weights, written) in [
        ("n=40", WeightsFrom::Trained, "v=1&n=40"),
        ("heads=2", WeightsFrom::Drawn, "v=1&heads=2"),
        ("seed=9&weights=trained", WeightsFrom::Trained, "v=1&seed=9&weights=trained"),
        ("weights=drawn", WeightsFrom::Drawn, "v=1&weights=drawn"),
        ("weights=opened", WeightsFrom::Opened, "v=1&weights=opened"),
    ] {
        let (e, complaints) = parse_with(query, &table);
        assert_eq!((e.weights, complaints), (weights, vec![]), "{query}");
        assert_eq!(write_with(&e, &table).query, written);
    }
    let layers = ["", "weights=drawn", "layer=0", "layer=1&heads=3"].map(|query| parse_with(query, &table).0.layer);
    assert_eq!(layers, [2, 0, 0, 1]);
    assert_eq!(write_with(&parse_with("layer=0", &table).0, &table).query, "v=1&layer=0");
    let (e, complaints) = parse_with("weights=stolen", &table);
    assert_eq!((e.weights, complaints.len()), (WeightsFrom::Trained, 1));
}

#[test]
fn a_bare_parameter_reaches_every_shown_variant_that_has_it() {
    let (e, complaints) = parse_with("window=30&variant=windowed,full,other", &table);
    assert_eq!(complaints, []);
    assert_eq!(e.params_of("windowed").0["window"], Value::Int(30));
    assert_eq!(e.params_of("other").0["window"], Value::Int(30));
}

#[test]
fn a_link_to_a_method_that_is_always_causal_is_causal() {
    for id in ["nsa", "adaptive_span", "transformer_xl", "gru"] {
        for (query, causal) in [
            (format!("v=1&variant={id}"), true),
            (format!("v=1&variant={id},full"), true),
            // Which of the two gives way is the visitor's to say.
            (format!("v=1&variant={id},linformer"), false),
            (format!("v=1&variant={id}&causal=0"), false),
        ] {
            let (e, complaints) = parse(&query);
            assert_eq!((e.causal, complaints), (causal, vec![]), "{query}");
            assert_eq!(write(&e).query, query);
        }
        assert_eq!(write(&parse(&format!("causal=1&variant={id}")).0).query, format!("v=1&variant={id}"));
    }
    let (e, _) = parse("v=1&variant=nsa,linformer&causal=1");
    assert!(e.causal);
    assert_eq!(write(&e).query, "v=1&variant=nsa,linformer&causal=1");
}

#[test]
fn a_link_to_a_race_without_contenders_has_the_usual_ones() {
    let (e, complaints) = parse("v=1&view=speed");
    assert_eq!(complaints, []);
    assert_eq!(e.variants, ["full", "sliding_window", "linformer", "linear"]);
    assert_eq!(e.variants, Experiment::rivals_of("full"));
    assert_eq!(write(&e).query, "v=1&view=speed");
    // A race of one is one only where the link says so.
    let alone = "v=1&view=speed&variant=full";
    assert_eq!(parse(alone).0.variants, ["full"]);
    assert_eq!(write(&parse(alone).0).query, alone);
    assert_eq!(parse("v=1").0.variants, ["full"]);
}

#[test]
fn what_is_wrong_is_named_and_the_rest_applies() {
    let (e, complaints) = parse_with(
        "v=2&view=upside&variant=full,nope&n=99999&head=9&heads=2&causal=perhaps&seed=-1&zoom=3&window=7&dim=32\
         &lang=%3Cb%3E&batch=1e9",
        &table,
    );
    let keys: Vec<&str> = complaints.iter().map(|c| c.key.as_str()).collect();
    assert_eq!(
        keys,
        ["variant", "v", "view", "n", "causal", "seed", "zoom", "window", "batch", "head", "lang"],
        "{complaints:#?}"
    );
    assert_eq!((e.n, e.dim, e.heads, e.head, e.batch), (MAX_LENGTH, 32, 2, 1, 1));
    assert_eq!((e.view, e.causal, e.lang.as_str()), (View::Weights, false, "en"));
    assert_eq!(e.variants, ["full"]);
    let n = &complaints[3];
    assert_eq!((n.got.as_str(), n.takes.as_str(), n.used.as_str()), ("99999", "an integer from 1 to 16384", "16384"));
}

#[test]
fn a_parameter_out_of_range_is_named() {
    let (e, complaints) = parse_with("variant=windowed,linear&window=0&linear.feature_map=cos&windowed.wide=1", &table);
    assert_eq!(complaints.len(), 2);
    assert_eq!(complaints[0].takes, "an integer from 1 to 512");
    assert_eq!(complaints[1].takes, "one of elu+1, relu");
    assert_eq!(e.params_of("windowed").0["wide"], Value::Bool(true));
    assert!(!e.params.contains_key("linear"));
}

#[test]
fn any_bytes_are_read_without_a_panic_and_in_bounds() {
    let mut r = Random(3);
    let keys =
        ["v", "n", "variant", "head", "heads", "seed", "text", "window", "windowed.wide", ".", "x", "lang", "dim"];
    for round in 0..3000 {
        let mut bytes = Vec::new();
        for _ in 0..r.below(6) {
            if r.below(3) > 0 {
                bytes.extend(keys[r.below(keys.len())].bytes());
                bytes.push(b'=');
            }
            for _ in 0..r.below(12) {
                bytes.push(if r.below(2) == 0 { b"0123456789%&=,.+-"[r.below(17)] } else { r.next() as u8 });
            }
            bytes.push(b'&');
        }
        let query = String::from_utf8_lossy(&bytes);
        let (e, complaints) = parse_with(&query, &table);
        let context = format!("round {round}: {query:?}");
        assert!((1..=MAX_LENGTH).contains(&e.n) && (1..=MAX_BATCH).contains(&e.batch), "{context}");
        assert!((1..=MAX_HEADS).contains(&e.heads) && e.head < e.heads, "{context}");
        assert!(!e.variants.is_empty() && e.variants.iter().all(|id| table(id).is_some()), "{context}");
        assert!(complaints.len() <= MAX_COMPLAINTS + 1, "{context}");
        // What was read is in range, so it needs no further correction, and its own link comes back without complaint.
        assert_eq!(e.clone().check(&table), [], "{context}");
        assert_eq!(parse_with(&write_with(&e, &table).query, &table).1, [], "{context}");
    }
}

#[test]
fn long_texts_and_addresses_are_cut_between_characters() {
    let e = Experiment { text: Some("é".repeat(MAX_LINK_TEXT_BYTES)), ..Experiment::default() };
    let link = write_with(&e, &table);
    assert!(link.text_cut);
    let (back, complaints) = parse_with(&link.query, &table);
    assert_eq!(complaints, []);
    assert_eq!(back.text, Some("é".repeat(MAX_LINK_TEXT_BYTES / 2)));
    let (_, complaints) = parse_with(&format!("text={}", "é".repeat(MAX_QUERY_BYTES)), &table);
    assert_eq!(complaints[0].key, "address");
}

#[test]
fn an_experiment_from_json_is_brought_into_range() {
    let mut e: Experiment = serde_json::from_str(
        r#"{"n": 0, "head": 70, "variants": ["nope"], "lang": "x y",
            "params": {"windowed": {"window": 9000, "wide": true, "depth": 2}, "gone": {"a": 1}}}"#,
    )
    .unwrap();
    let complaints = e.check(&table);
    assert_eq!(complaints.len(), 7, "{complaints:#?}");
    assert_eq!((e.n, e.head), (1, 3));
    assert_eq!(e.variants, ["full"]);
    assert_eq!(e.params.len(), 1);
    assert_eq!(e.params["windowed"].0.len(), 1);
}
