//! The screen on a terminal of whatever size: what is narrow loses columns, what is low the lower half.

use super::screen::{Order, Screen, bytes, identity, packets};
use crate::cli::stats::{Amount, ClusterStats, ServiceStats, dash};
use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table, TableState},
};

/// A column: its title, its width, and from which width of the terminal on it is there.
struct Column {
    title: &'static str,
    width: u16,
    from: u16,
    cell: fn(&ServiceStats) -> String,
    order: Option<Order>,
}

const COLUMNS: [Column; 8] = [
    Column {
        title: "CPS",
        width: 8,
        from: 0,
        cell: |row| rate(row.connections),
        order: Some(Order::Connections),
    },
    Column { title: "PPS", width: 8, from: 50, cell: |row| short(packets(row)), order: Some(Order::Packets) },
    Column { title: "BPS", width: 9, from: 40, cell: |row| short(bytes(row)), order: Some(Order::Bytes) },
    Column { title: "InBPS", width: 9, from: 110, cell: |row| row.bytes_in.short(), order: None },
    Column { title: "OutBPS", width: 9, from: 110, cell: |row| row.bytes_out.short(), order: None },
    Column { title: "Backends", width: 8, from: 85, cell: |row| row.backends.len().to_string(), order: None },
    Column { title: "Clusters", width: 26, from: 126, cell: |row| shares(&row.clusters), order: None },
    Column { title: "VIP", width: 25, from: 70, cell: |row| identity(row).1, order: None },
];

pub(super) fn draw(frame: &mut Frame<'_>, screen: &mut Screen) {
    let area = frame.area();
    let services = screen.services();
    let selected = screen.selected(&services);
    let clusters = selected.map(|place| services[place].clusters.len()).unwrap_or_default();
    // Title and clusters; not at the cost of the Services.
    let below = u16::try_from(clusters + 2).unwrap_or(u16::MAX).min(area.height / 3);
    let below = if area.height < 12 || selected.is_none() { 0 } else { below };
    let [head, above, lower, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(below),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(headline(screen), head);
    draw_services(frame, screen, &services, selected, above);
    if let Some(place) = selected
        && below > 0
    {
        draw_clusters(frame, services[place], lower);
    }
    frame.render_widget(footline(screen), foot);
    if screen.help {
        draw_help(frame, area);
    }
}

fn headline(screen: &Screen) -> Paragraph<'_> {
    let text = match screen.stats() {
        None => format!("mcs-proxy top  {}  looking for {:?} …", screen.place, screen.interval),
        Some(stats) => {
            let sum = |amount: fn(&ServiceStats) -> f64| stats.services.iter().map(amount).sum::<f64>();
            format!(
                "mcs-proxy  {} conn/s  {} packets/s  {} bytes/s{}  {} frontends  {} clusters",
                rate(Amount::PerSecond(sum(|row| row.connections.value()))),
                short(sum(packets)),
                short(sum(bytes)),
                if screen.paused { "  PAUSED" } else { "" },
                stats.services.len(),
                stats.clusters.len(),
            )
        }
    };
    Paragraph::new(text).style(Style::new().add_modifier(Modifier::BOLD))
}

fn draw_services(
    frame: &mut Frame<'_>,
    screen: &Screen,
    services: &[&ServiceStats],
    selected: Option<usize>,
    area: Rect,
) {
    let columns: Vec<&Column> = COLUMNS.iter().filter(|column| area.width >= column.from).collect();
    let arrow = |order: Option<Order>| match (order == Some(screen.order), screen.reversed) {
        (false, _) => "",
        (true, false) => "▼",
        (true, true) => "▲",
    };
    let mut titles = vec![Cell::from(format!("Service{}", arrow(Some(Order::Name))))];
    titles.extend(columns.iter().map(|column| title(column, arrow(column.order))));
    let rows = services.iter().map(|service| {
        let mut cells = vec![Cell::from(identity(service).0)];
        cells.extend(columns.iter().map(|column| cell(column, (column.cell)(service))));
        Row::new(cells)
    });
    let mut widths = vec![Constraint::Min(12)];
    widths.extend(columns.iter().map(|column| Constraint::Length(column.width)));
    let table = Table::new(rows, widths)
        .header(Row::new(titles).style(Style::new().add_modifier(Modifier::UNDERLINED)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(selected);
    frame.render_stateful_widget(table, area, &mut state);
    if services.is_empty() && area.height > 2 {
        let why = match screen.stats() {
            None => "",
            Some(stats) if stats.services.is_empty() => "No frontends; `mcs-proxy services` says why.",
            Some(_) => "Nothing has this in its name, address or clusters; / and Esc show all.",
        };
        let beneath = Rect { y: area.y + 2, height: area.height - 2, ..area };
        frame.render_widget(Paragraph::new(why), beneath);
    }
}

fn title(column: &Column, arrow: &str) -> Cell<'static> {
    cell(column, format!("{}{arrow}", column.title))
}

/// Numbers to the right, words to the left.
fn cell(column: &Column, text: String) -> Cell<'static> {
    let is_number = column.width < 20;
    Cell::from(Line::from(text).alignment(if is_number { Alignment::Right } else { Alignment::Left }))
}

fn draw_clusters(frame: &mut Frame<'_>, service: &ServiceStats, area: Rect) {
    let right = |text: String| Cell::from(Line::from(text).alignment(Alignment::Right));
    let all: f64 = service.clusters.iter().map(|cluster| cluster.connections.value()).sum();
    let rows = service.clusters.iter().map(|cluster| {
        Row::new([
            Cell::from(dash(&cluster.cluster)),
            right(cluster.backends.to_string()),
            right(rate(cluster.connections)),
            right(percent(cluster.connections.value(), all)),
            right(rate(cluster.answered)),
            right(cluster.bytes.short()),
        ])
    });
    let widths = [
        Constraint::Min(12),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(10),
        Constraint::Length(9),
    ];
    let titles = ["Backends", "CPS", "share", "Answered/s", "BPS"].map(|text| right(text.to_owned()));
    let named = Cell::from(format!("Clusters of {}", identity(service).0));
    let header = Row::new(std::iter::once(named).chain(titles));
    let table = Table::new(rows, widths)
        .header(header.style(Style::new().add_modifier(Modifier::UNDERLINED)))
        .block(Block::new().borders(Borders::TOP));
    frame.render_widget(table, area);
}

fn footline(screen: &Screen) -> Line<'_> {
    let key = |key: &'static str| Span::styled(key, Style::new().add_modifier(Modifier::REVERSED));
    if screen.typing {
        return Line::from(vec![
            key("/"),
            Span::raw(format!(" {}", screen.filter)),
            Span::raw("▏  Enter keeps it, Esc shows all"),
        ]);
    }
    let mut spans = vec![
        key("q"),
        Span::raw(" quit  "),
        key("s"),
        Span::raw(format!(" by {}  ", screen.order.name())),
        key("r"),
        Span::raw(" reverse  "),
        key("/"),
    ];
    spans.push(Span::raw(if screen.filter.is_empty() {
        " filter  ".to_owned()
    } else {
        format!(" filter: {}  ", screen.filter)
    }));
    spans.extend([key("p"), Span::raw(" pause  "), key("?"), Span::raw(" help")]);
    Line::from(spans)
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    const HELP: &str = "\
q, Esc, Ctrl-C   quit
s                order by connections, packets, bytes or name, in turn
r                the other way round
/                filter by name, address, protocol or cluster
p, Space         pause
↑ ↓ PgUp PgDn    choose the Service whose clusters are shown below
Home End         the first, the last

CPS: new connections a second; PPS, BPS: packets and bytes, both
directions; of sockets (host-network clients) connections alone.";
    let (width, height) = (area.width.min(72), area.height.min(13));
    let middle =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, middle);
    frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" any key closes this ")), middle);
}

fn short(value: f64) -> String {
    Amount::PerSecond(value).short()
}

/// Few are shown with a digit more.
fn rate(amount: Amount) -> String {
    let value = amount.value();
    if value > 0.0 && value < 100.0 { format!("{value:.1}") } else { amount.short() }
}

fn shares(clusters: &[ClusterStats]) -> String {
    let all: f64 = clusters.iter().map(|cluster| cluster.connections.value()).sum();
    let share = |cluster: &ClusterStats| {
        let name = dash(&cluster.cluster);
        if all > 0.0 { format!("{name} {}", percent(cluster.connections.value(), all)) } else { name }
    };
    clusters.iter().map(share).collect::<Vec<_>>().join(" ")
}

fn percent(part: f64, all: f64) -> String {
    if all > 0.0 { format!("{:.0}%", 100.0 * part / all) } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{stats::Stats, top::testing::stats};
    use ratatui::{
        Terminal,
        backend::TestBackend,
        crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    };
    use std::time::Duration;

    fn screen() -> Screen {
        let mut screen = Screen::new("/sys/fs/bpf/mcs-proxy".into(), Duration::from_secs(1));
        screen.show(stats(&[("busy", 100.0, 10.0), ("large", 12.5, 123_456_789.0), ("idle", 0.0, 0.0)]));
        screen
    }

    fn lines(screen: &mut Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells = |y| (0..width).map(move |x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| cells(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn a_wide_terminal_shows_everything() {
        let lines = lines(&mut screen(), 140, 20);
        assert!(lines[0].contains("3 frontends  2 clusters"), "{lines:#?}");
        assert!(lines[1].starts_with("Service") && lines[1].contains("CPS▼"), "{lines:#?}");
        let large = &lines[3];
        for words in
            ["default/large:http", "12.5", "123457K", "member1 50% member2 50%", "TCP 10.13.181.2:80"]
        {
            assert!(large.contains(words), "no `{words}`: {large}");
        }
        let below = lines.iter().position(|line| line.contains("Clusters of default/busy:http")).unwrap();
        assert!(lines[below + 1].contains("member1") && lines[below + 1].contains("50%"), "{lines:#?}");
        assert!(lines[19].contains("q quit"), "{lines:#?}");
    }

    #[test]
    fn a_small_terminal_shows_the_most_important_and_none_is_too_small() {
        let small = lines(&mut screen(), 40, 8);
        assert!(
            small[1].contains("CPS▼") && small[1].contains("BPS") && !small[1].contains("VIP"),
            "{small:#?}"
        );
        assert!(small[2].contains("default/busy:http"), "{small:#?}");
        assert!(!small.iter().any(|line| line.contains("Clusters of")), "{small:#?}");
        for (width, height) in [(1, 1), (3, 2), (10, 4), (500, 3), (20, 200)] {
            let mut screen = screen();
            lines(&mut screen, width, height);
            screen.help = true;
            lines(&mut screen, width, height);
        }
    }

    #[test]
    fn an_empty_screen_says_why() {
        let mut screen = Screen::new("/pins".into(), Duration::from_secs(1));
        assert!(lines(&mut screen, 80, 10)[0].contains("looking for 1s"));
        screen.show(Stats::default());
        assert!(lines(&mut screen, 80, 10)[3].contains("says why"));
        screen.show(stats(&[("busy", 1.0, 1.0)]));
        for key in "/zzz".chars() {
            screen.press(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE));
        }
        let lines = lines(&mut screen, 80, 10);
        assert!(lines[3].contains("Nothing has this") && lines[9].contains("zzz"), "{lines:#?}");
    }

    #[test]
    fn more_services_than_lines_scroll_to_the_selected_one() {
        let names: Vec<String> = (0..100).map(|number| format!("service-{number:02}")).collect();
        let services: Vec<(&str, f64, f64)> = names
            .iter()
            .zip(0..)
            .map(|(name, number)| (name.as_str(), f64::from(100 - number), 0.0))
            .collect();
        let mut screen = Screen::new("/pins".into(), Duration::from_secs(1));
        screen.show(stats(&services));
        screen.press(KeyEvent::new(KeyCode::End, KeyModifiers::NONE));
        let lines = lines(&mut screen, 80, 24);
        assert!(lines.iter().any(|line| line.contains("default/service-99")), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("default/service-00")), "{lines:#?}");
    }
}
