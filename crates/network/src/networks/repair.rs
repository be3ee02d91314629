//! Noticing that somebody took away what is ours, and putting it back.

use std::os::fd::AsFd as _;

use super::{NetworkState, Networks, Teardown, veth_pair};
use crate::route::Routes;
use crate::{Driver, Endpoint, NetworkConfig, Result, netns};

impl Networks {
    /// What the state asks for and the kernel does not have, in words: rules that were flushed, bridges and links that
    /// were deleted or taken apart. Empty when all is well. Cheap enough to ask every few seconds.
    ///
    /// # Errors
    /// What netlink reports.
    pub fn damage(&self, state: &[NetworkState]) -> Result<Vec<String>> {
        let bridged = || state.iter().filter(|state| state.network.driver == Driver::Bridge);
        let mut damage = Vec::new();
        if bridged().next().is_some() && !self.is_intact()? {
            damage.push(format!("rules of nft table inet {}", self.instance.table()));
        }
        let links = Routes::open()?.links()?;
        let find = |name: &str| links.iter().find(|link| link.name == name);
        for NetworkState { network, endpoints } in bridged() {
            let name = network.bridge_name();
            let Some(bridge) = find(name.as_str()) else {
                damage.push(format!("bridge {name}"));
                continue;
            };
            let gone = |endpoint: &&Endpoint| {
                let port = find(endpoint.host_interface(network).as_str());
                port.is_none_or(|port| port.controller != Some(bridge.index))
            };
            damage.extend(endpoints.iter().filter(gone).map(|endpoint| {
                format!("link {} in bridge {name}", endpoint.host_interface(network))
            }));
        }
        Ok(damage)
    }

    /// Puts back what [`damage`](Self::damage) misses. Rules come first, since without them containers are exposed; links
    /// that are still there are plugged in again, so that connections of their containers survive. Like
    /// [`sync`](Self::sync) it must run alone.
    ///
    /// Everything is tried; what failed is in the result.
    pub fn repair(&self, state: &[NetworkState]) -> Teardown {
        let mut done = Teardown::default();
        done.attempt(self.sync(state));
        for NetworkState { network, endpoints } in
            state.iter().filter(|state| state.network.driver == Driver::Bridge)
        {
            let made = self.create(network);
            let usable = made.is_ok();
            done.attempt(made);
            if !usable {
                continue;
            }
            for endpoint in endpoints {
                done.attempt(self.plug_again(network, endpoint));
            }
        }
        done
    }

    fn plug_again(&self, network: &NetworkConfig, endpoint: &Endpoint) -> Result<()> {
        let mut routes = Routes::open()?;
        let host = endpoint.host_interface(network);
        let bridge = routes.link(&network.bridge_name())?;
        let (Some(port), Some(bridge)) = (routes.link(&host)?, bridge) else {
            return self.connect(network, endpoint);
        };
        if port.controller == Some(bridge.index) {
            return Ok(());
        }
        routes.set_controller(port.index, &host, bridge.index)?;
        let netns = netns::open(&endpoint.netns)?;
        let alias = self.endpoint_alias(network, endpoint);
        let pair = veth_pair(network, endpoint, &host, &alias, &bridge, netns.as_fd());
        routes.raise_port(port.index, &pair)
    }
}
