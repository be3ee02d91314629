//! The restart policy that Docker lacks: `on-unhealthy`, which the generated names of policies cannot say.
//!
//! On the wire it is a name like the others, in `HostConfig.RestartPolicy.Name` of a creation and of an inspection, and
//! in `RestartPolicy.Name` of an update. In memory the generated body says `on-failure`, which it includes, and
//! [`Restarting`] says that more is meant.

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// The policy's name.
pub const ON_UNHEALTHY: &str = "on-unhealthy";
/// The policy that a generated body holds in its place.
const ON_FAILURE: &str = "on-failure";
/// Where the bodies keep the name: creation and inspection, update, and a policy by itself.
const POINTERS: [&str; 3] = ["/HostConfig/RestartPolicy/Name", "/RestartPolicy/Name", "/Name"];

/// A body with a restart policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restarting<T> {
    /// The body.
    pub body: T,
    /// Its policy, which reads `on-failure`, is `on-unhealthy`.
    pub on_unhealthy: bool,
}

impl<T> From<T> for Restarting<T> {
    fn from(body: T) -> Self {
        Self { body, on_unhealthy: false }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Restarting<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let on_unhealthy = replace(&mut value, ON_UNHEALTHY, ON_FAILURE);
        let body = serde_json::from_value(value).map_err(D::Error::custom)?;
        Ok(Self { body, on_unhealthy })
    }
}

impl<T: Serialize> Serialize for Restarting<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.on_unhealthy {
            return self.body.serialize(serializer);
        }
        let mut value = serde_json::to_value(&self.body).map_err(S::Error::custom)?;
        replace(&mut value, ON_FAILURE, ON_UNHEALTHY);
        value.serialize(serializer)
    }
}

fn replace(body: &mut Value, name: &str, by: &str) -> bool {
    let holds =
        |body: &Value, pointer: &str| body.pointer(pointer).is_some_and(|found| found == name);
    let Some(pointer) = POINTERS.into_iter().find(|pointer| holds(body, pointer)) else {
        return false;
    };
    if let Some(found) = body.pointer_mut(pointer) {
        *found = by.into();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{ContainerCreateBody, ContainerUpdateBody, RestartPolicyNameEnum};

    #[test]
    fn the_policy_goes_over_the_wire_by_its_name_and_is_a_kind_of_on_failure_in_memory() {
        let wire =
            r#"{"HostConfig":{"RestartPolicy":{"Name":"on-unhealthy","MaximumRetryCount":3}}}"#;
        let read: Restarting<ContainerCreateBody> = serde_json::from_str(wire).unwrap();
        assert!(read.on_unhealthy);
        let policy = read.body.host_config.clone().unwrap().restart_policy.unwrap();
        assert_eq!(policy.name, Some(RestartPolicyNameEnum::ON_FAILURE));
        assert_eq!(policy.maximum_retry_count, Some(3));
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(wire).unwrap());
        let wire = r#"{"RestartPolicy":{"Name":"on-unhealthy"}}"#;
        let read: Restarting<ContainerUpdateBody> = serde_json::from_str(wire).unwrap();
        assert_eq!((read.on_unhealthy, &*serde_json::to_string(&read).unwrap()), (true, wire));
    }

    #[test]
    fn other_policies_are_what_they_were_and_unknown_ones_are_errors() {
        for name in ["", "no", "always", "on-failure", "unless-stopped"] {
            let wire = format!(r#"{{"RestartPolicy":{{"Name":"{name}"}}}}"#);
            let read: Restarting<ContainerUpdateBody> = serde_json::from_str(&wire).unwrap();
            assert_eq!((read.on_unhealthy, serde_json::to_string(&read).unwrap()), (false, wire));
        }
        let wire = r#"{"RestartPolicy":{"Name":"on-sunday"}}"#;
        assert!(serde_json::from_str::<Restarting<ContainerUpdateBody>>(wire).is_err());
        // A name elsewhere is not a policy's.
        let wire = r#"{"Hostname":"on-unhealthy"}"#;
        let read: Restarting<ContainerCreateBody> = serde_json::from_str(wire).unwrap();
        assert!(!read.on_unhealthy);
    }
}
