//! Docker's `filters` argument: JSON in a query parameter.
//!
//! Two forms are in use: `{"label":["a","b"]}` and `{"label":{"a":true,"b":true}}`. Both are read; the second, which
//! every daemon since API 1.22 reads, is written. What a filter means is the endpoint's business; this module only
//! offers the matching rules that several endpoints share.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

/// Longest filter argument accepted, in bytes.
const MAX_LENGTH: usize = 64 * 1024;

/// Filters by name, each with the values of which one must match (all must for labels).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

/// Filters that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FiltersError {
    /// Not JSON in either form.
    #[error("the filters are not a JSON object of lists or of sets")]
    Syntax(#[source] serde_json::Error),
    /// Too long to be sensible.
    #[error("the filters are longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// A filter that the endpoint does not know.
    #[error("invalid filter '{0}'")]
    Unknown(String),
    /// A value that the filter does not take.
    #[error("invalid filter '{name}={value}'")]
    Value {
        /// The filter's name.
        name: String,
        /// The value refused.
        value: String,
    },
}

/// The values of one filter in either form.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Set(BTreeMap<String, bool>),
    List(Vec<String>),
    Null,
}

impl Filters {
    /// No filters.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses the argument; empty text means no filters.
    ///
    /// # Errors
    /// [`FiltersError::Syntax`] or [`FiltersError::TooLong`].
    pub fn parse(text: &str) -> Result<Self, FiltersError> {
        if text.len() > MAX_LENGTH {
            return Err(FiltersError::TooLong);
        }
        if text.is_empty() {
            return Ok(Self::default());
        }
        let parsed: Option<BTreeMap<String, Values>> =
            serde_json::from_str(text).map_err(FiltersError::Syntax)?;
        let entries = parsed.unwrap_or_default().into_iter().filter_map(|(name, values)| {
            let values: Vec<String> = match values {
                Values::Set(set) => set.into_keys().collect(),
                Values::List(list) => list,
                Values::Null => Vec::new(),
            };
            (!values.is_empty()).then_some((name, values))
        });
        Ok(Self(entries.collect()))
    }

    /// The argument, in the form of sets. Empty when there are no filters.
    #[must_use]
    pub fn encode(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let sets: BTreeMap<&str, BTreeMap<&str, bool>> = self
            .0
            .iter()
            .map(|(name, values)| {
                (name.as_str(), values.iter().map(|value| (value.as_str(), true)).collect())
            })
            .collect();
        // Maps with string keys always serialise.
        serde_json::to_string(&sets).unwrap_or_default()
    }

    /// Adds a value to a filter.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.entry(name.into()).or_default().push(value.into());
    }

    /// The same filters with one more value.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.add(name, value);
        self
    }

    /// Whether there are no filters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the filter is given.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The values of a filter; empty when it is not given.
    #[must_use]
    pub fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The filters as a plain map from names to values.
    #[must_use]
    pub fn into_map(self) -> BTreeMap<String, Vec<String>> {
        self.0
    }

    /// The names of the filters given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Refuses filters that the endpoint does not know.
    ///
    /// # Errors
    /// [`FiltersError::Unknown`] with the first such filter.
    pub fn expect_only(&self, known: &[&str]) -> Result<(), FiltersError> {
        match self.names().find(|name| !known.contains(name)) {
            Some(name) => Err(FiltersError::Unknown(name.to_owned())),
            None => Ok(()),
        }
    }

    /// The value of a filter that is true or false, if given.
    ///
    /// # Errors
    /// [`FiltersError::Value`] when it is neither, or both.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, FiltersError> {
        let mut answer = None;
        for value in self.values(name) {
            let parsed = match value.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
                _ => None,
            };
            match (answer, parsed) {
                (None, Some(_)) => answer = parsed,
                (Some(earlier), Some(now)) if earlier == now => {}
                _ => {
                    let (name, value) = (name.to_owned(), value.clone());
                    return Err(FiltersError::Value { name, value });
                }
            }
        }
        Ok(answer)
    }

    /// Whether the filter is absent or one of its values is `candidate`.
    #[must_use]
    pub fn matches_exactly(&self, name: &str, candidate: &str) -> bool {
        self.matches_any(name, |value| value == candidate)
    }

    /// Whether the filter is absent or one of its values begins `candidate`.
    #[must_use]
    pub fn matches_prefix(&self, name: &str, candidate: &str) -> bool {
        self.matches_any(name, |value| candidate.starts_with(value))
    }

    /// Whether the filter is absent or one of its values occurs in `candidate`.
    #[must_use]
    pub fn matches_part(&self, name: &str, candidate: &str) -> bool {
        self.matches_any(name, |value| candidate.contains(value))
    }

    /// Whether the filter is absent or `predicate` holds for one of its values.
    pub fn matches_any(&self, name: &str, predicate: impl FnMut(&str) -> bool) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().map(String::as_str).any(predicate)
    }

    /// Whether `labels` carries every `key` or `key=value` of the filter `label`, and none of `label!`.
    #[must_use]
    pub fn matches_labels(&self, labels: &HashMap<String, String>) -> bool {
        let carries = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").iter().all(carries) && !self.values("label!").iter().any(carries)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_are_read() {
        let expected = Filters::new().with("label", "a").with("label", "b").with("status", "x");
        for text in [
            r#"{"label":["a","b"],"status":["x"]}"#,
            r#"{"label":{"a":true,"b":true},"status":{"x":true}}"#,
            r#"{"label":{"b":true,"a":false},"status":["x"],"none":[],"null":null}"#,
        ] {
            assert_eq!(Filters::parse(text).unwrap(), expected, "{text}");
        }
        for empty in ["", "{}", "null"] {
            assert!(Filters::parse(empty).unwrap().is_empty());
        }
    }

    #[test]
    fn other_json_is_refused() {
        for text in ["[]", "1", "{", r#"{"a":1}"#, r#"{"a":"b"}"#, r#"{"a":{"b":1}}"#, "{}x"] {
            assert!(Filters::parse(text).is_err(), "{text}");
        }
        assert!(matches!(Filters::parse(&"x".repeat(70_000)), Err(FiltersError::TooLong)));
    }

    #[test]
    fn labels_must_all_match_and_negated_ones_must_not() {
        let labels =
            HashMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x=y".to_owned())]);
        let matches = |text| Filters::parse(text).unwrap().matches_labels(&labels);
        assert!(matches("{}"));
        assert!(matches(r#"{"label":["a","b=x=y"]}"#));
        assert!(!matches(r#"{"label":["a","c"]}"#));
        assert!(!matches(r#"{"label":["a=2"]}"#));
        assert!(!matches(r#"{"label!":["a"]}"#));
        assert!(matches(r#"{"label!":["a=2"]}"#));
    }

    #[test]
    fn booleans_and_unknown_names() {
        let filters = Filters::parse(r#"{"dangling":["true"],"odd":["true","0"]}"#).unwrap();
        assert_eq!(filters.boolean("dangling").unwrap(), Some(true));
        assert_eq!(filters.boolean("absent").unwrap(), None);
        assert!(filters.boolean("odd").is_err());
        let unknown = filters.expect_only(&["dangling"]).unwrap_err();
        assert_eq!(unknown.to_string(), "invalid filter 'odd'");
    }

    proptest! {
        #[test]
        fn any_filters_survive_the_wire(pairs in proptest::collection::vec((".{0,8}", ".{0,8}"), 0..8)) {
            let mut filters = Filters::new();
            for (name, value) in pairs {
                filters.add(name, value);
            }
            for values in filters.0.values_mut() {
                values.sort();
                values.dedup();
            }
            prop_assert_eq!(Filters::parse(&filters.encode()).unwrap(), filters);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,64}") {
            let _ = Filters::parse(&text);
        }
    }
}
