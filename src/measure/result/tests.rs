use super::*;
use crate::random::bits;

fn file() -> ResultFile {
    let time = Timing::new(&[2.0, 1.0, 3.0, 2.5, 1.5], "timestamp");
    let row = Row {
        variant: "sliding_window".into(),
        params: BTreeMap::from([("window".into(), 64.into()), ("dilation".into(), 1.into())]),
        causal: true,
        batch: 1,
        heads: 4,
        dim: 64,
        length: 1024,
        time_ms: time,
        stages_ms: BTreeMap::from([("mix".into(), 1.5)]),
        bytes: Bytes { peak: 4096, by_category: BTreeMap::from([("activations".into(), 4096)]) },
        flops: 1 << 40,
        error_to_full: Some(ErrorToFull { max_abs: 0.5, rms_ratio: 0.25 }),
        ..Row::default()
    };
    let refused = Row { time_ms: None, refused: Some("too \"large\", by far".into()), length: 16384, ..row.clone() };
    ResultFile {
        schema: SCHEMA,
        commit: "abc".into(),
        adapter: "=adapter".into(),
        driver: "driver 1".into(),
        browser: None,
        limits: BTreeMap::from([("max_buffer_bytes".into(), 1 << 30)]),
        timer_quantum_ns: Some(100),
        rows: vec![row, refused],
    }
}

#[test]
fn a_result_file_comes_back_as_it_was() {
    let (back, complaints) = read(&file().to_json()).unwrap();
    assert_eq!(complaints, []);
    assert_eq!(back, file());
}

#[test]
fn a_bad_row_is_named_and_the_rest_is_used() {
    let mut value: serde_json::Value = serde_json::from_str(&file().to_json()).unwrap();
    let good = value["rows"][0].clone();
    let rows = value["rows"].as_array_mut().unwrap();
    for (field, bad) in [
        ("/length", serde_json::json!(0)),
        ("/heads", serde_json::json!("four")),
        ("/time_ms/median", serde_json::Value::Null),
        ("/time_ms/median", serde_json::json!(-1)),
        ("/time_ms/min", serde_json::json!(1e300)),
        ("/time_ms", serde_json::Value::Null),
        ("/variant", serde_json::json!([])),
        ("/causal", serde_json::json!(1)),
    ] {
        let mut row = good.clone();
        *row.pointer_mut(field).unwrap() = bad;
        rows.push(row);
    }
    rows.push(serde_json::json!(7));
    let (back, complaints) = read(&value.to_string()).unwrap();
    assert_eq!(back.rows, file().rows);
    let keys: Vec<&str> = complaints.iter().map(|c| c.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "rows[2].length",
            "rows[3].heads",
            "rows[4].median",
            "rows[5].median",
            "rows[6].median",
            "rows[7].time_ms",
            "rows[8].variant",
            "rows[9].causal",
            "rows[10]."
        ]
    );
}

#[test]
fn what_is_no_result_file_is_refused_with_a_reason() {
    for (text, reason) in [
        ("", "no JSON"),
        ("[1, 2", "no JSON"),
        ("{\"rows\": [{\"median\": NaN}]}", "no JSON"),
        ("[]", "an object is expected"),
        ("{\"schema\": 1}", "no array called rows"),
        ("{\"schema\": 99, \"rows\": []}", "its schema is 99"),
        ("{\"rows\": []}", "its schema is none"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    assert!(matches!(read(&" ".repeat(17 << 20)), Err(ReadError::TooLarge(_))));
    // Nesting deeper than the parser's own bound.
    assert!(matches!(read(&"[".repeat(100_000)), Err(ReadError::Json(_))));
}

#[test]
fn any_damage_is_survived() {
    let whole = file().to_json().into_bytes();
    for round in 0..2000 {
        let mut bytes = whole.clone();
        for i in 0..1 + bits(1, round, 0) % 4 {
            let at = bits(2, round, i) as usize % bytes.len();
            bytes[at] = b"0919eE-+\"{}[],:ntu"[bits(3, round, i) as usize % 18];
        }
        if let Ok((file, _)) = read(&String::from_utf8_lossy(&bytes)) {
            for row in file.rows {
                assert!(row.length > 0 && row.time_ms.is_none_or(|t| t.median.is_finite()), "round {round}");
            }
        }
    }
}

#[test]
fn csv_has_a_line_a_row_and_quotes_what_must_be() {
    let csv = file().to_csv();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].starts_with("sliding_window,1024,1,4,64,true,false,2,1,3,5,timestamp,4096,"), "{}", lines[1]);
    assert!(lines[1].ends_with(",'=adapter"), "{}", lines[1]);
    assert!(lines[2].contains("\"too \"\"large\"\", by far\""), "{}", lines[2]);
}
