//! Follows the kernel by rtnetlink.

use super::{Pattern, state::Question, state::State};
use futures::{StreamExt, TryStreamExt};
use mcs_proxy_ebpf::abi::Place;
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection, packet_core::NetlinkPayload,
    packet_route::route::RouteMessage,
};
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr},
};
use tokio::sync::mpsc;

/// What becomes of the pods' interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceEvent {
    /// At first, and after messages of the kernel's were lost: all there are, names by index. An index may be another
    /// interface's than before.
    Snapshot(BTreeMap<u32, String>),
    Appeared {
        index: u32,
        name: String,
    },
    /// What the programs need to know of one of them: when it is first known, and whenever it changes.
    Placed {
        index: u32,
        place: Place,
    },
    /// Gone, or no pod's any more.
    Vanished {
        index: u32,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum InterfacesError {
    #[error("rtnetlink: {0}")]
    Socket(#[from] io::Error),
    #[error("rtnetlink: {0}")]
    Request(#[from] rtnetlink::Error),
    #[error("rtnetlink: the connection ended")]
    Ended,
}

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Tells of the pods' interfaces in the network namespace of the calling thread, at once and for good: ends when
/// nobody listens any more, or with an error, after which it can be called again (and begins with a snapshot).
pub async fn watch(
    exclude: Vec<Pattern>,
    events: mpsc::Sender<InterfaceEvent>,
) -> Result<(), InterfacesError> {
    // Subscribed before anything is asked, so that no change falls in between.
    let (connection, handle, mut messages) = new_multicast_connection(&GROUPS)?;
    let connection = AbortOnDrop(tokio::spawn(connection));
    let mut state = ask_all(&handle).await?;
    let mut known = state.pods(&exclude);
    if events.send(InterfaceEvent::Snapshot(known.clone())).await.is_err() {
        return Ok(());
    }
    let mut places = BTreeMap::new();
    if !tell(&events, moved(&mut places, state.places(&known))).await {
        return Ok(());
    }
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            () = events.closed() => return Ok(()),
        };
        let Some((message, _)) = message else { break };
        let mut question = None;
        if let NetlinkPayload::InnerMessage(message) = &message.payload {
            question = state.apply(message);
        } else if let NetlinkPayload::Overrun(_) = message.payload {
            // ENOBUFS: messages were lost, among them perhaps that an interface went and another came by its index,
            // which comparing what is there now with what was before would not show.
            state = ask_all(&handle).await?;
            known = state.pods(&exclude);
            if events.send(InterfaceEvent::Snapshot(known.clone())).await.is_err() {
                return Ok(());
            }
        }
        match question {
            Some(Question::Routes) => state.set_routes(&ask_routes(&handle).await?),
            Some(Question::Link(index)) => {
                // It may be gone by now, of which there will be a message.
                if let Ok(Some(link)) = handle.link().get().match_index(index).execute().try_next().await {
                    state.enter_link(&link);
                }
            }
            None => {}
        }
        let pods = state.pods(&exclude);
        // What vanished comes first: the index of what appears may be the same. Then places, before the programs that
        // want to know.
        let (vanished, appeared) = difference(&known, &pods);
        if !tell(&events, vanished).await
            || !tell(&events, moved(&mut places, state.places(&pods))).await
            || !tell(&events, appeared).await
        {
            return Ok(());
        }
        known = pods;
    }
    drop(connection);
    Err(InterfacesError::Ended)
}

async fn ask_all(handle: &Handle) -> Result<State, InterfacesError> {
    let mut state = State::default();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await? {
        // The routes are asked for in any case.
        let _routes = state.enter_link(&link);
    }
    let mut addresses = handle.address().get().execute();
    while let Some(address) = addresses.try_next().await? {
        state.enter_address(&address);
    }
    state.set_routes(&ask_routes(handle).await?);
    Ok(state)
}

async fn ask_routes(handle: &Handle) -> Result<Vec<RouteMessage>, InterfacesError> {
    let v4 = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    let mut routes: Vec<RouteMessage> = v4.try_collect().await?;
    let v6 = handle.route().get(RouteMessageBuilder::<Ipv6Addr>::new().build()).execute();
    match v6.try_collect::<Vec<_>>().await {
        Ok(v6) => routes.extend(v6),
        // A kernel without IPv6 has no such routes.
        Err(error) => tracing::debug!(%error, "no IPv6 routes"),
    }
    Ok(routes)
}

/// `false` if nobody listens any more.
async fn tell(events: &mpsc::Sender<InterfaceEvent>, news: impl IntoIterator<Item = InterfaceEvent>) -> bool {
    for event in news {
        if events.send(event).await.is_err() {
            return false;
        }
    }
    true
}

/// The places that are not as they were known.
fn moved(known: &mut BTreeMap<u32, Place>, now: BTreeMap<u32, Place>) -> Vec<InterfaceEvent> {
    let news = now.iter().filter(|(index, place)| known.get(index) != Some(place));
    let events = news.map(|(&index, &place)| InterfaceEvent::Placed { index, place }).collect();
    *known = now;
    events
}

/// What vanished, and what appeared.
fn difference(
    old: &BTreeMap<u32, String>,
    new: &BTreeMap<u32, String>,
) -> (Vec<InterfaceEvent>, Vec<InterfaceEvent>) {
    let vanished = old.keys().filter(|index| !new.contains_key(index));
    let appeared = new.iter().filter(|(index, _)| !old.contains_key(index));
    (
        vanished.map(|&index| InterfaceEvent::Vanished { index }).collect(),
        appeared.map(|(&index, name)| InterfaceEvent::Appeared { index, name: name.clone() }).collect(),
    )
}

/// The connection is driven by a task of its own, which is to end with the watch.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
