//! Latency distributions as an SVG picture: the part of the transactions that took no longer, over
//! the latency on a logarithmic axis.

use std::path::Path;

use plotters::prelude::*;

use crate::arithmetic::real;
use crate::histogram::Latency;

/// Width and height in pixels.
const SIZE: (u32, u32) = (960, 540);

/// Slower ones than this part of all are not shown: they would press the others together.
const SHOWN_MAX: f64 = 0.999;

/// Why a picture could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the picture {path}: {reason}")]
pub struct PlotError {
    path: String,
    reason: String,
}

/// Writes the cumulative distributions of several runs.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, title: &str, series: &[(String, &Latency)]) -> Result<(), PlotError> {
    let mut picture = String::new();
    draw(&mut picture, title, series)
        .map_err(|error| error.to_string())
        .and_then(|()| std::fs::write(path, &picture).map_err(|error| error.to_string()))
        .map_err(|reason| PlotError { path: path.display().to_string(), reason })
}

fn draw(
    picture: &mut String,
    title: &str,
    series: &[(String, &Latency)],
) -> Result<(), Box<dyn std::error::Error>> {
    let lines: Vec<Vec<(f64, f64)>> = series
        .iter()
        .map(|(_, latency)| {
            let points = latency.cumulative();
            let points = points.into_iter().filter(|(_, part)| *part <= SHOWN_MAX);
            points.map(|(ns, part)| (real(ns) / 1000.0, part)).collect()
        })
        .collect();
    let all = || lines.iter().flatten().map(|point| point.0);
    let low = all().fold(f64::INFINITY, f64::min);
    let high = all().fold(0.0, f64::max);
    let (low, high) = if low.is_finite() { (low * 0.9, high * 1.1) } else { (0.1, 1.0) };
    let root = SVGBackend::with_string(picture, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d((low..high).log_scale(), 0.0..1.0)?;
    chart.configure_mesh().x_desc("round trip, us").y_desc("part of all").draw()?;
    for (index, ((name, _), line)) in series.iter().zip(lines).enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(name.clone())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_title_and_series() {
        let mut latency = Latency::new();
        (1000..2000).for_each(|ns| latency.record(ns));
        let mut picture = String::new();
        let series = [("kernel spin".to_owned(), &latency), ("empty".to_owned(), &Latency::new())];
        draw(&mut picture, "TCP_RR", &series).unwrap();
        for text in ["<svg", "TCP_RR", "kernel spin", "round trip"] {
            assert!(picture.contains(text), "{text}");
        }
    }
}
