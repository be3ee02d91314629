//! Shapes that the version served still has and the generated types no longer do.

use brig_engine_api::Filters;
use brig_engine_api::models::{EventMessage, EventMessageTypeEnum};
use brig_engine_api::types::InspectedContainer;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// An event with the fields that clients older than API 1.22 read, and docker-compose 1 still does.
#[derive(Debug, Serialize)]
pub(super) struct Event {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(flatten)]
    event: EventMessage,
}

impl From<EventMessage> for Event {
    fn from(event: EventMessage) -> Self {
        let container = event.typ == Some(EventMessageTypeEnum::CONTAINER);
        if !container && event.typ != Some(EventMessageTypeEnum::IMAGE) {
            return Self { status: None, id: None, from: None, event };
        }
        let actor = event.actor.as_ref();
        let image = actor.and_then(|actor| actor.attributes.as_ref()?.get("image").cloned());
        Self {
            status: event.action.clone(),
            id: actor.and_then(|actor| actor.id.clone()),
            from: image.filter(|_| container),
            event,
        }
    }
}

/// Filters as the engine takes them.
pub(super) fn filters(filters: Filters) -> crate::Filters {
    crate::Filters::new(filters.into_map())
}

/// A container's description with how it ended last, and the addresses of the default bridge repeated where API 1.51 has them.
pub(super) fn container(inspected: &InspectedContainer) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(&inspected.container)?;
    let container = &inspected.container.body;
    if let (Some(death), Some(Value::Object(state))) = (&inspected.death, value.get_mut("State")) {
        state.insert("Death".to_owned(), serde_json::to_value(death)?);
    }
    let mode = container.host_config.as_ref().and_then(|config| config.network_mode.as_deref());
    let default = matches!(mode, None | Some("" | "default" | "bridge"));
    if let Some(Value::Object(settings)) = value.get_mut("NetworkSettings") {
        let bridge = settings.get("Networks").and_then(|networks| networks.get("bridge"));
        let bridge = bridge.filter(|_| default).cloned().unwrap_or(Value::Null);
        add_bridge_addresses(settings, &bridge);
    }
    Ok(value)
}

fn add_bridge_addresses(settings: &mut Map<String, Value>, bridge: &Value) {
    for key in
        ["EndpointID", "Gateway", "GlobalIPv6Address", "IPAddress", "IPv6Gateway", "MacAddress"]
    {
        let value = bridge.get(key).filter(|value| value.is_string()).cloned();
        settings.entry(key).or_insert_with(|| value.unwrap_or_else(|| json!("")));
    }
    for key in ["GlobalIPv6PrefixLen", "IPPrefixLen"] {
        let value = bridge.get(key).filter(|value| value.is_number()).cloned();
        settings.entry(key).or_insert_with(|| value.unwrap_or_else(|| json!(0)));
    }
    for (key, value) in [
        ("Bridge", json!("")),
        ("HairpinMode", json!(false)),
        ("LinkLocalIPv6Address", json!("")),
        ("LinkLocalIPv6PrefixLen", json!(0)),
        ("SecondaryIPAddresses", Value::Null),
        ("SecondaryIPv6Addresses", Value::Null),
    ] {
        settings.entry(key).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use brig_engine_api::models::{
        ContainerInspectResponse, EndpointSettings, EventActor, HostConfig, NetworkSettings,
    };

    use super::*;

    #[test]
    fn container_events_carry_the_old_fields_and_others_do_not() {
        let event = |kind| EventMessage {
            typ: Some(kind),
            action: Some("start".into()),
            actor: Some(EventActor {
                id: Some("abc".into()),
                attributes: Some(HashMap::from([("image".to_owned(), "busybox".to_owned())])),
            }),
            ..EventMessage::default()
        };
        let value =
            serde_json::to_value(Event::from(event(EventMessageTypeEnum::CONTAINER))).unwrap();
        assert_eq!(value["status"], "start");
        assert_eq!(value["id"], "abc");
        assert_eq!(value["from"], "busybox");
        assert_eq!(value["Type"], "container");
        let value =
            serde_json::to_value(Event::from(event(EventMessageTypeEnum::NETWORK))).unwrap();
        assert!(value.get("status").is_none());
    }

    #[test]
    fn the_default_bridges_address_is_repeated_and_no_others() {
        let inspect = |mode: &str| InspectedContainer {
            death: None,
            container: ContainerInspectResponse {
                host_config: Some(HostConfig {
                    network_mode: Some(mode.into()),
                    ..HostConfig::default()
                }),
                network_settings: Some(NetworkSettings {
                    networks: Some(HashMap::from([(
                        mode.to_owned(),
                        EndpointSettings {
                            ip_address: Some("172.17.0.2".into()),
                            ip_prefix_len: Some(16),
                            ..EndpointSettings::default()
                        },
                    )])),
                    ..NetworkSettings::default()
                }),
                ..ContainerInspectResponse::default()
            }
            .into(),
        };
        let value = container(&inspect("bridge")).unwrap();
        assert_eq!(value["NetworkSettings"]["IPAddress"], "172.17.0.2");
        assert_eq!(value["NetworkSettings"]["IPPrefixLen"], 16);
        assert_eq!(value["NetworkSettings"]["Gateway"], "");
        let value = container(&inspect("mine")).unwrap();
        assert_eq!(value["NetworkSettings"]["IPAddress"], "");
    }
}
