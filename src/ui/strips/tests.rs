use super::*;
use crate::attention::{ALL, Causal, Request, Setup, Value};
use crate::ui::texts::LANGUAGES;
use std::collections::HashMap;

fn part(form: Form, rows: usize, values: &[f32]) -> Part {
    Part { name: "part".into(), form, rows, columns: values.len() / rows, values: values.into() }
}

fn whole(n: usize) -> Viewport {
    crate::ui::geometry::whole(n)
}

fn pixel(picture: &Pixels, row: usize, column: usize) -> [u8; 4] {
    picture.rgba[(row * picture.width + column) * 4..][..4].try_into().unwrap()
}

#[test]
fn forty_labels_have_thirty_colours_of_which_neighbours_differ() {
    let colours: std::collections::BTreeSet<_> = (0..40).map(label_colour).collect();
    assert_eq!(colours.len(), 30);
    assert_eq!(label_colour(3), label_colour(33));
}

#[test]
fn a_window_shows_the_blocks_that_a_viewport_touches() {
    let blocks = part(Form::Shares { tokens: 8, row_tokens: 8 }, 4, &[0.0; 16]);
    let view = Viewport { row: 0.0, col: 12.0, rows: 10.0, cols: 10.0 };
    // Tokens 12 to 22 lie in the blocks 8 to 16 and 16 to 24.
    let window = window(&blocks, view, 30);
    assert_eq!(window, Window { first: 1, count: 2, left: -0.4, width: 1.6 });
    let order = part(Form::Order { chunk: 2 }, 1, &[3.0, 1.0, 0.0, 2.0]);
    assert_eq!(super::window(&order, view, 4).count, 4);
}

#[test]
fn labels_and_their_order_have_the_same_colours() {
    let labels = part(Form::Labels { count: 3, of: Of::Tokens }, 1, &[2.0, 0.0, 3.0, 2.0]);
    let order = part(Form::Order { chunk: 2 }, 1, &[1.0, 0.0, 3.0, 2.0]);
    let view = whole(4);
    let by_token = pixels(&labels, None, window(&labels, view, 4));
    let sorted = pixels(&order, Some(&labels), window(&order, view, 4));
    for (place, token) in [1, 0, 3, 2].into_iter().enumerate() {
        assert_eq!(pixel(&sorted, 0, place), pixel(&by_token, 0, token));
    }
    // Three is none of three labels.
    assert_eq!(pixel(&by_token, 0, 2)[3], 0);
    assert_eq!(pixel(&by_token, 0, 0), [LABELS[2][0], LABELS[2][1], LABELS[2][2], 255]);
    assert_eq!(marks(&order, view, 4, (0, 0)), [[0.25, 0.0, 0.25, 1.0]]);
    assert_eq!(cursor_at(&order, view, 4, (0.6, 0.5), None), (3, 3));
    assert_eq!(said(&labels, (1, 3), "none"), [(3, vec!["2".into(), "2".into()]), (1, vec!["0".into(), "1".into()])]);
    assert_eq!(said(&labels, (2, 2), "none")[0].1[0], "none");
    assert_eq!(said(&order, (0, 0), "none"), [(0, vec!["1".into()])]);
}

#[test]
fn members_and_spans_are_drawn_where_they_lie() {
    let form = Form::Members { count: 4, tokens: 1, row_tokens: 0, of: Of::Queries };
    let members = part(form, 2, &[0.0, 3.0, 1.0, 9.0]);
    let picture = pixels(&members, None, window(&members, whole(4), 4));
    let filled = |row: usize, column: usize| pixel(&picture, row, column)[3] > 0;
    let drawn: Vec<bool> = (0..8).map(|at| filled(at / 4, at % 4)).collect();
    assert_eq!(drawn, [true, false, false, true, false, true, false, false]);
    assert_eq!(said(&members, (2, 0), "none"), [(2, vec!["none".into()])]);
    assert_eq!(cursor_at(&members, whole(4), 4, (0.8, 0.1), Some((0, 1))), (3, 1));

    let spans = part(Form::Spans, 2, &[0.0, 0.0, 3.0, 1.0, 3.0, 5.0]);
    let picture = pixels(&spans, None, window(&spans, whole(5), 5));
    let own = pixel(&picture, 0, 0);
    assert_eq!([0, 1, 2].map(|column| pixel(&picture, 0, column)), [own; 3]);
    assert_eq!(pixel(&picture, 1, 0)[3], 0);
    assert!(pixel(&picture, 1, 1) != own && pixel(&picture, 1, 4) == own);
    assert_eq!(said(&spans, (4, 0), "none"), [(4, vec!["2".into(), "2".into()])]);
    assert_eq!(marks(&spans, whole(5), 5, (4, 1)), [[0.2, 0.5, 0.2, 0.5]]);
}

#[test]
fn shares_are_read_by_block() {
    let shares = part(Form::Shares { tokens: 2, row_tokens: 2 }, 2, &[0.0, 1.0, 0.25, 0.5]);
    let picture = pixels(&shares, None, window(&shares, whole(4), 4));
    assert_eq!(pixel(&picture, 0, 0)[..3], CIVIDIS[0]);
    assert_eq!(pixel(&picture, 0, 1)[..3], CIVIDIS[8]);
    assert_eq!(pixel(&picture, 1, 1)[..3], CIVIDIS[4]);
    assert_eq!(said(&shares, (3, 1), "none"), [(3, vec!["0.250".into(), "1".into(), "0".into()])]);
}

/// Setups in which methods decide all that they ever do.
fn setups() -> Vec<(&'static crate::attention::Variant, Setup)> {
    let mut all = Vec::new();
    for variant in ALL.iter().copied().filter(|variant| variant.decide.is_some()) {
        for causal in [false, true] {
            let cannot = match variant.causal {
                Causal::Both => false,
                Causal::Never(_) => causal,
                Causal::Always => !causal,
            };
            if !cannot {
                let params = crate::attention::Params([("rounds".to_owned(), Value::Int(2))].into());
                let params = if variant.id == "reformer" { params } else { Default::default() };
                let (length, structure) = (64, Default::default());
                all.push((
                    variant,
                    Setup { batch: 1, heads: 2, length, keys: length, dim: 8, causal, params, seed: 1, structure },
                ));
            }
        }
    }
    all
}

#[test]
fn every_decision_has_its_texts() {
    let mut seen = 0;
    for (code, json) in LANGUAGES {
        let texts: HashMap<String, String> = serde_json::from_str(json).unwrap();
        for (variant, s) in setups() {
            let request = Request { decisions: true, ..Request::default() };
            for decision in variant.build_all(&s, request).decisions {
                let key = format!("decided.{}.{}", variant.id, decision.name);
                let mut keys = vec![key.clone(), format!("{key}.meaning")];
                if decision.form != Form::Lengths {
                    keys.push(format!("{key}.said"));
                }
                for key in keys {
                    assert!(texts.contains_key(&key), "{code}: no text for {key}");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 60, "only {seen} texts");
}
