//! What `top` shows, and what keys do to it.

use crate::cli::stats::{Amount, ServiceStats, Stats, full_name};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::{cmp::Ordering, net::SocketAddr, time::Duration};

/// By what the Services are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Connections,
    Packets,
    Bytes,
    Name,
}

impl Order {
    pub(super) const ALL: [Self; 4] = [Self::Connections, Self::Packets, Self::Bytes, Self::Name];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Name => "name",
        }
    }

    fn next(self) -> Self {
        let place = Self::ALL.iter().position(|&order| order == self).unwrap_or_default();
        Self::ALL[(place + 1) % Self::ALL.len()]
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    GoOn,
    Quit,
}

#[derive(Debug)]
pub(super) struct Screen {
    /// Where the maps are.
    pub(super) place: String,
    pub(super) interval: Duration,
    /// `None` before the second look.
    stats: Option<Stats>,
    pub(super) order: Order,
    pub(super) reversed: bool,
    pub(super) paused: bool,
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) typing: bool,
    pub(super) help: bool,
    /// The Service that the lower half is about, by name and place, so that it stays the same when the order changes.
    selected: Option<(String, String)>,
}

impl Screen {
    pub(super) const fn new(place: String, interval: Duration) -> Self {
        Self {
            place,
            interval,
            stats: None,
            order: Order::Connections,
            reversed: false,
            paused: false,
            filter: String::new(),
            typing: false,
            help: false,
            selected: None,
        }
    }

    /// What happened in the last interval.
    pub(super) fn show(&mut self, stats: Stats) {
        if !self.paused {
            self.stats = Some(stats);
        }
    }

    pub(super) const fn stats(&self) -> Option<&Stats> {
        self.stats.as_ref()
    }

    /// Those that the filter lets through, in order.
    pub(super) fn services(&self) -> Vec<&ServiceStats> {
        let mut services: Vec<_> = self
            .stats
            .iter()
            .flat_map(|stats| &stats.services)
            .filter(|one| self.lets_through(one))
            .collect();
        services.sort_by(|one, other| {
            let order = match self.order {
                Order::Connections => busier(one, other, |row| row.connections.value()),
                Order::Packets => busier(one, other, packets),
                Order::Bytes => busier(one, other, bytes),
                Order::Name => identity(one).cmp(&identity(other)),
            };
            // Of those that do as much, the name decides, so that they do not jump about.
            let order = order.then_with(|| identity(one).cmp(&identity(other)));
            if self.reversed { order.reverse() } else { order }
        });
        services
    }

    fn lets_through(&self, service: &ServiceStats) -> bool {
        let (name, place) = identity(service);
        let has = |text: &str| text.to_lowercase().contains(&self.filter.to_lowercase());
        has(&name) || has(&place) || service.clusters.iter().any(|cluster| has(&cluster.cluster))
    }

    /// Which of [`Self::services`] the lower half is about.
    pub(super) fn selected(&self, services: &[&ServiceStats]) -> Option<usize> {
        let found = self
            .selected
            .as_ref()
            .and_then(|selected| services.iter().position(|service| identity(service) == *selected));
        found.or_else(|| (!services.is_empty()).then_some(0))
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the keys are the terminal's, and most mean nothing here"
    )]
    pub(super) fn press(&mut self, key: KeyEvent) -> After {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if matches!(key.code, KeyCode::Char('c' | 'd')) { After::Quit } else { After::GoOn };
        }
        if self.typing {
            self.type_filter(key.code);
            return After::GoOn;
        }
        if self.help {
            self.help = false;
            return After::GoOn;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return After::Quit,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Down | KeyCode::Char('j') => self.select(|place| place + 1),
            KeyCode::Up | KeyCode::Char('k') => self.select(|place| place.saturating_sub(1)),
            KeyCode::PageDown => self.select(|place| place + 10),
            KeyCode::PageUp => self.select(|place| place.saturating_sub(10)),
            KeyCode::Home => self.select(|_| 0),
            KeyCode::End => self.select(|_| usize::MAX),
            _ => {}
        }
        After::GoOn
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "as above")]
    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.typing = false;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
    }

    fn select(&mut self, to: impl Fn(usize) -> usize) {
        let services = self.services();
        let place = self.selected(&services).map(|place| to(place).min(services.len() - 1));
        self.selected = place.map(|place| identity(services[place]));
    }
}

/// More comes first.
fn busier(one: &ServiceStats, other: &ServiceStats, amount: impl Fn(&ServiceStats) -> f64) -> Ordering {
    amount(other).total_cmp(&amount(one))
}

pub(super) fn packets(service: &ServiceStats) -> f64 {
    sum(service.packets_in, service.packets_out)
}

pub(super) fn bytes(service: &ServiceStats) -> f64 {
    sum(service.bytes_in, service.bytes_out)
}

fn sum(one: Amount, other: Amount) -> f64 {
    one.value() + other.value()
}

/// Name, and protocol with address and port.
pub(super) fn identity(service: &ServiceStats) -> (String, String) {
    let ServiceStats { namespace, name, port_name, vip, port, protocol, .. } = service;
    let address = SocketAddr::new(*vip, *port);
    (full_name(namespace, name, port_name), format!("{protocol} {address}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::testing::stats;

    fn names(screen: &Screen) -> Vec<String> {
        screen.services().iter().map(|service| service.name.clone()).collect()
    }

    fn press(screen: &mut Screen, keys: &str) -> After {
        let mut after = After::GoOn;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                'D' => KeyCode::Down,
                'U' => KeyCode::Up,
                'E' => KeyCode::End,
                other => KeyCode::Char(other),
            };
            after = screen.press(KeyEvent::new(code, KeyModifiers::NONE));
        }
        after
    }

    fn screen() -> Screen {
        let mut screen = Screen::new("/sys/fs/bpf/mcs-proxy".into(), Duration::from_secs(1));
        screen.show(stats(&[("busy", 100.0, 10.0), ("idle", 0.0, 0.0), ("large", 10.0, 9000.0)]));
        screen
    }

    #[test]
    fn services_are_ordered_by_what_was_asked_for() {
        let mut screen = screen();
        assert_eq!(names(&screen), ["busy", "large", "idle"]);
        press(&mut screen, "ss");
        assert_eq!((screen.order, names(&screen)[0].as_str()), (Order::Bytes, "large"));
        press(&mut screen, "sr");
        assert_eq!(names(&screen), ["large", "idle", "busy"]);
        press(&mut screen, "s");
        assert_eq!(screen.order, Order::Connections);
    }

    #[test]
    fn a_filter_is_typed_and_letters_are_no_commands_meanwhile() {
        let mut screen = screen();
        assert_eq!(press(&mut screen, "/qs"), After::GoOn);
        assert_eq!((screen.filter.as_str(), names(&screen).len()), ("qs", 0));
        press(&mut screen, "\x08\x08LAR\n");
        assert_eq!(names(&screen), ["large"]);
        press(&mut screen, "/\x1b");
        assert_eq!(names(&screen).len(), 3);
        press(&mut screen, "/member1\n");
        assert_eq!(names(&screen).len(), 3, "clusters are looked at as well");
        assert_eq!(press(&mut screen, "q"), After::Quit);
    }

    #[test]
    fn the_selected_service_stays_selected_when_the_order_changes() {
        let mut screen = screen();
        let selected = |screen: &Screen| {
            let services = screen.services();
            screen.selected(&services).map(|place| services[place].name.clone())
        };
        assert_eq!(selected(&screen).as_deref(), Some("busy"));
        press(&mut screen, "D");
        assert_eq!(selected(&screen).as_deref(), Some("large"));
        press(&mut screen, "ss");
        assert_eq!(selected(&screen).as_deref(), Some("large"));
        press(&mut screen, "DDDDU");
        assert_eq!(selected(&screen).as_deref(), Some("busy"));
        press(&mut screen, "E");
        assert_eq!(selected(&screen).as_deref(), Some("idle"));
        screen.show(Stats::default());
        press(&mut screen, "DUE");
        assert_eq!(selected(&screen), None);
    }

    #[test]
    fn a_pause_keeps_what_is_shown_and_every_way_out_is_one() {
        let mut screen = screen();
        press(&mut screen, "p");
        screen.show(Stats::default());
        assert_eq!(names(&screen).len(), 3);
        press(&mut screen, "p");
        screen.show(Stats::default());
        assert_eq!(names(&screen).len(), 0);
        assert_eq!(press(&mut screen, "?\x1b"), After::GoOn, "closes the help");
        assert_eq!(press(&mut screen, "\x1b"), After::Quit);
        let control = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
        press(&mut screen, "/");
        assert_eq!(screen.press(control('c')), After::Quit);
        assert_eq!(screen.press(control('x')), After::GoOn);
    }
}
