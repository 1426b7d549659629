//! The picture: new connections a second over the number of Services, a line an arm, as SVG.

use crate::{
    arm::Arm,
    ratios,
    samples::{Figure, Measure, Run, StageSamples, Target},
};
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 380.0;
/// Where the lines are: the rest is for the words.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 560.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 330.0;

/// Of stages with one endpoint.
pub(super) fn svg(run: &Run) -> String {
    let stages: Vec<&StageSamples> = run.stages.iter().filter(|stage| stage.endpoints == 1).collect();
    let lines: Vec<(Arm, Vec<(f64, f64)>)> = Arm::ALL
        .map(|arm| (arm, line(&stages, arm)))
        .into_iter()
        .filter(|(_, line)| !line.is_empty())
        .collect();
    let points = || lines.iter().flat_map(|(_, line)| line);
    let most = points().map(|point| point.1).fold(1000.0, f64::max);
    let top = (most / 1000.0).ceil() * 1000.0;
    let widest = points().map(|point| point.0).fold(10.0, f64::max).log10();
    let x = |services: f64| LEFT + (RIGHT - LEFT) * services.log10() / widest;
    let y = |rate: f64| BOTTOM - (BOTTOM - TOP) * rate / top;

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">New connections a second (connect, request, response, close), one core</text>\n"
    );
    for step in 0..=4 {
        let rate = top * f64::from(step) / 4.0;
        let height = y(rate);
        // Writing to a String does not fail.
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{height:.1}\" y2=\"{height:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{rate:.0}</text>",
            LEFT - 8.0,
            height + 4.0
        );
    }
    for stage in &stages {
        let (services, place) = (stage.services, x(f64::from(stage.services)));
        let _ = writeln!(
            svg,
            "<text x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{services}</text>",
            BOTTOM + 18.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">Services</text>",
        f64::midpoint(LEFT, RIGHT),
        BOTTOM + 38.0
    );
    for (index, (arm, line)) in lines.iter().enumerate() {
        svg += &arm_svg(
            *arm,
            TOP + 20.0 * index as f64,
            line.iter().map(|&(services, rate)| (x(services), y(rate))),
        );
    }
    svg + "</svg>\n"
}

fn line(stages: &[&StageSamples], arm: Arm) -> Vec<(f64, f64)> {
    let median = |stage: &&StageSamples| {
        let rates = stage.figures(arm, Measure::Crr, Target::Last, Figure::Rate);
        ratios::quantile(&rates, 0.5).map(|rate| (f64::from(stage.services), rate))
    };
    stages.iter().filter_map(median).collect()
}

/// The line, its points, and what it is called.
fn arm_svg(arm: Arm, height: f64, points: impl Iterator<Item = (f64, f64)>) -> String {
    let colour = colour(arm);
    let points: Vec<_> = points.collect();
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let mut svg = format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
        path.join(" ")
    );
    for (x, y) in points {
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }
    let (swatch, text) = (RIGHT + 20.0, RIGHT + 50.0);
    let _ = writeln!(
        svg,
        "<line x1=\"{swatch}\" x2=\"{:.1}\" y1=\"{height}\" y2=\"{height}\" stroke=\"{colour}\" stroke-width=\"3\"/>\
         <text x=\"{text}\" y=\"{:.1}\">{arm}</text>",
        swatch + 22.0,
        height + 4.0
    );
    svg
}

/// Of the palette of Okabe and Ito, which colour-blind people tell apart, too.
const fn colour(arm: Arm) -> &'static str {
    match arm {
        Arm::Direct => "#999999",
        Arm::Empty => "#56b4e9",
        Arm::KubeProxyNftables => "#e69f00",
        Arm::KubeProxyIptables => "#d55e00",
        Arm::Packet => "#0072b2",
        Arm::Redirect => "#cc79a7",
        Arm::Socket => "#009e73",
    }
}
