use serde_json::Value;

/// The documents of a manifest file, or what is wrong with it and where. A `.json` file may hold several, one after
/// the other; any other is read as YAML, of which JSON is a part.
pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Vec<Value>, String> {
    // Truncated and not written yet; or `kubectl get … > file` found nothing and left it so.
    if bytes.is_empty() {
        return Err("empty (if its objects are to go, remove the file)".to_owned());
    }
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if name.ends_with(".json") {
        let documents = serde_json::Deserializer::from_str(text).into_iter();
        return documents.collect::<Result<_, _>>().map_err(|error| error.to_string());
    }
    serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| {
        let message = error.without_snippet().to_string();
        message.lines().next().unwrap_or_default().to_owned()
    })
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // A snippet would put the file's content into the log.
        with_snippet: false,
        // The library's own limits suit configuration files; a `List` of a cluster's slices may well have millions
        // of nodes, and the size of a file is bounded already. What stays small is what can multiply: aliases.
        budget: serde_saphyr::budget! {
            max_events: 100_000_000,
            max_nodes: 100_000_000,
            max_total_scalar_bytes: 1 << 30,
            max_documents: 1_000_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_and_json_of_several_documents_are_read_as_kubectl_does() {
        for (name, text, expected) in [
            ("a.yaml", "# nothing yet\n", vec![]),
            (
                "a.yaml",
                "---\n# nothing\n---\nkind: A\n---\n\n---\nkind: B\n",
                vec![json!({"kind": "A"}), json!({"kind": "B"})],
            ),
            ("a.yaml", "{\"kind\": \"A\", \"x\": [1, null]}\n", vec![json!({"kind": "A", "x": [1, null]})]),
            // Kubernetes reads YAML 1.1: an unquoted `on` is a boolean, and a quoted one is not.
            (
                "a.yaml",
                "a: on\nb: \"no\"\nc: 80\nd: 1.5\n",
                vec![json!({"a": true, "b": "no", "c": 80, "d": 1.5})],
            ),
            ("a.yaml", "a: &x [1]\nb: *x\n", vec![json!({"a": [1], "b": [1]})]),
            (
                "a.json",
                "{\"kind\": \"A\"}\n{\"kind\": \"B\"}",
                vec![json!({"kind": "A"}), json!({"kind": "B"})],
            ),
            ("a.json", "\u{feff}[]", vec![json!([])]),
        ] {
            assert_eq!(parse(name, text.as_bytes()), Ok(expected), "{name}: {text}");
        }
    }

    #[test]
    fn a_broken_file_is_named_by_line_and_not_quoted() {
        for (name, bytes) in [
            ("a.yaml", &b"kind: Service\nmetadata: {name: topsecret"[..]),
            ("a.yaml", b"kind: Service\n  topsecret: a\n b: [\n"),
            ("a.yaml", b"topsecret: 1\ntopsecret: 2\n"),
            ("a.json", b"{\"kind\": \"topsecret\""),
        ] {
            let error = parse(name, bytes).unwrap_err();
            assert!(error.contains("line "), "{error}");
            assert!(!error.contains("Service") && !error.contains('\n'), "{error}");
        }
        assert!(parse("a.yaml", b"").unwrap_err().contains("empty"));
        assert!(parse("a.yaml", b"kind: \xff\xfe").unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn aliases_do_not_multiply_without_bound() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..20 {
            let items = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{items}]\n"));
        }
        assert!(parse("a.yaml", bomb.as_bytes()).is_err());
    }
}
