//! The `filters` parameter of list, prune and event calls.

use std::collections::{BTreeMap, HashMap};

use crate::error::{Error, Result};

/// Filter names with their values. Values of one name are alternatives; different names must all match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Filters from the decoded query parameter.
    pub fn new(map: BTreeMap<String, Vec<String>>) -> Self {
        Self(map)
    }

    /// Adds one value.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.entry(name.into()).or_default().push(value.into());
    }

    pub(crate) fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Refuses names that the call does not know, as docker does.
    pub(crate) fn check(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(Error::invalid(format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }

    /// True when no value was given for `name`, or one of them passes `test`.
    pub(crate) fn any(&self, name: &str, test: impl Fn(&str) -> bool) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().any(|value| test(value))
    }

    /// A boolean filter such as `dangling=true`.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>> {
        let mut found = None;
        for value in self.values(name) {
            found = Some(match value.as_str() {
                "1" | "true" | "True" | "TRUE" | "t" | "T" => true,
                "0" | "false" | "False" | "FALSE" | "f" | "F" => false,
                other => {
                    return Err(Error::invalid(format!(
                        "invalid value '{other}' for filter '{name}'"
                    )));
                }
            });
        }
        Ok(found)
    }

    /// All of the `label` filters (`key` or `key=value`) match, and none of the `label!` ones.
    pub(crate) fn labels(&self, labels: &HashMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").iter().all(has) && !self.values("label!").iter().any(has)
    }
}
