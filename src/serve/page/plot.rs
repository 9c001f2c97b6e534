//! A plot of one number over time, as a drawing in the page.

use chrono::{DateTime, Utc};

use crate::platform::text;

/// The unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes.
    Bytes,
    /// Rows.
    Rows,
    /// Seconds.
    Seconds,
}

impl Unit {
    fn shown(self, value: f64) -> String {
        match self {
            Unit::Bytes => text::bytes(value as u64),
            Unit::Rows => format!("{} rows", grouped(value as u64)),
            Unit::Seconds => text::seconds(value),
        }
    }
}

/// Formats a number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    groups.join(" ")
}

/// A point of a plot.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) x: String,
    pub(super) y: String,
    pub(super) description: String,
}

/// A plot: a line from the first point to the last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plot {
    /// The name of the plotted number.
    pub title: String,
    /// The points in order of time, at most [`Plot::MAX_POINTS`].
    pub(super) points: Vec<Point>,
    /// The number of points before they were thinned.
    pub(super) total: usize,
    pub(super) line: String,
    pub(super) maximum: String,
    pub(super) newest: String,
    pub(super) from: String,
    pub(super) to: String,
}

/// The size of the plot area, in units of the drawing.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 80.0;

impl Plot {
    /// The maximum number of points that are drawn: more than a screen can show separately.
    pub(crate) const MAX_POINTS: usize = 300;

    /// Plots values over time; `values` may be in any order.
    #[must_use]
    pub(crate) fn new(title: &str, unit: Unit, values: &[(DateTime<Utc>, f64)]) -> Plot {
        let mut sorted = values.to_vec();
        sorted.sort_by_key(|(at, _)| *at);
        let total = sorted.len();
        let kept = thinned(&sorted);
        let maximum = kept.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let (first, last) = match (kept.first(), kept.last()) {
            (Some(first), Some(last)) => (first.0, last.0),
            _ => Default::default(),
        };
        let span = (last - first).num_milliseconds() as f64;
        let place = |(at, value): &(DateTime<Utc>, f64)| {
            let across = if span > 0.0 { (*at - first).num_milliseconds() as f64 / span } else { 0.5 };
            let up = if maximum > 0.0 { value / maximum } else { 0.0 };
            (format!("{:.1}", across * WIDTH), format!("{:.1}", HEIGHT - up * HEIGHT))
        };
        let points: Vec<Point> = kept
            .iter()
            .map(|one| {
                let (x, y) = place(one);
                Point { x, y, description: format!("{}: {}", text::time(one.0), unit.shown(one.1)) }
            })
            .collect();
        let line: Vec<String> = points.iter().map(|point| format!("{},{}", point.x, point.y)).collect();
        let date = |at: DateTime<Utc>| if total == 0 { String::new() } else { at.format("%Y-%m-%d").to_string() };
        Plot {
            title: title.to_owned(),
            line: line.join(" "),
            total,
            maximum: unit.shown(maximum),
            newest: kept.last().map(|(_, value)| unit.shown(*value)).unwrap_or_default(),
            from: date(first),
            to: date(last),
            points,
        }
    }

    pub(super) fn is_thinned(&self) -> bool {
        self.points.len() < self.total
    }
}

/// Reduces the points to at most [`Plot::MAX_POINTS`], evenly spaced; the first and the last are kept.
fn thinned(sorted: &[(DateTime<Utc>, f64)]) -> Vec<(DateTime<Utc>, f64)> {
    if sorted.len() <= Plot::MAX_POINTS {
        return sorted.to_vec();
    }
    let last = sorted.len() - 1;
    (0..Plot::MAX_POINTS).map(|number| sorted[number * last / (Plot::MAX_POINTS - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + hours * 3600, 0).expect("a time")
    }

    #[test]
    fn points_are_where_their_time_and_value_put_them() {
        let plot = Plot::new("size", Unit::Rows, &[(at(10), 50.0), (at(0), 0.0), (at(5), 100.0)]);
        let places: Vec<_> = plot.points.iter().map(|point| (point.x.as_str(), point.y.as_str())).collect();
        assert_eq!(places, [("0.0", "80.0"), ("150.0", "0.0"), ("300.0", "40.0")]);
        assert_eq!((plot.maximum.as_str(), plot.newest.as_str()), ("100 rows", "50 rows"));
    }

    #[test]
    fn many_points_are_thinned_and_the_ends_stay() {
        let values: Vec<_> = (0..10_000).map(|hours| (at(hours), hours as f64)).collect();
        let plot = Plot::new("rows", Unit::Rows, &values);
        assert_eq!((plot.points.len(), plot.total, plot.is_thinned()), (Plot::MAX_POINTS, 10_000, true));
        assert_eq!((plot.points[0].x.as_str(), plot.points[299].y.as_str()), ("0.0", "0.0"));
        assert_eq!(plot.newest, "9 999 rows");
    }

    #[test]
    fn nothing_one_and_zeros_are_drawn_too() {
        assert_eq!(Plot::new("rows", Unit::Rows, &[]).points.len(), 0);
        for plot in [Plot::new("s", Unit::Seconds, &[(at(0), 0.0)]), Plot::new("s", Unit::Bytes, &[(at(0), 3.0)])] {
            assert_eq!(plot.points.len(), 1);
            assert!(!plot.line.contains("NaN"), "{}", plot.line);
        }
    }
}
