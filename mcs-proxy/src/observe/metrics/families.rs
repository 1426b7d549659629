use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};
use std::fmt;

/// A row's labels.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Writes families of metrics, each with its name, help and unit.
pub(super) struct Families<'a>(pub(super) DescriptorEncoder<'a>);

impl Families<'_> {
    pub(super) fn gauge(
        &mut self,
        (name, help, unit): (&str, &str, Option<Unit>),
        rows: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        rows.into_iter()
            .try_for_each(|(labels, value)| row(&mut family, &labels, |row| row.encode_gauge(&value)))
    }

    pub(super) fn counter(
        &mut self,
        (name, help, unit): (&str, &str, Option<Unit>),
        rows: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        rows.into_iter().try_for_each(|(labels, value)| {
            row(&mut family, &labels, |row| row.encode_counter::<NoLabelSet, _, u64>(&value, None))
        })
    }
}

fn row(
    family: &mut MetricEncoder<'_>,
    labels: &Labels,
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if labels.is_empty() { encode(family) } else { encode(&mut family.encode_family(labels)?) }
}
