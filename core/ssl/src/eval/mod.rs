//! Measurements of plain feature matrices; knows no model and no session.
//!
//! 1. [`features`] holds the numbers, one row a photo.
//! 2. [`geometry`] says how the rows lie on the sphere; [`mod@collapse`] whether they still differ,
//!    [`mod@lidar`] in how many directions that matter.
//! 3. [`neighbors`] finds the nearest rows; [`retrieval`] turns them into accuracies, [`neighborhood`] says
//!    how many stay among a photo's nearest.
//! 4. [`ranking`], [`few_shot`] and [`clusters`] are what an app asks of features, [`mod@panel`] all three;
//!    [`linear_probe`] trains a linear layer on them.
//! 5. [`tta`] averages features over several views of a photo, and puts those of networks side by side.
//! 6. [`measurement`] takes all of these at once; [`measured`] does so for the photos of a source, as
//!    a run's before and after.

mod blocks;
pub mod clusters;
pub mod collapse;
pub mod extract;
pub mod features;
pub mod few_shot;
pub mod geometry;
pub mod lidar;
pub mod linear_probe;
pub mod measured;
pub mod measurement;
pub mod neighborhood;
pub mod neighbors;
pub mod panel;
pub mod ranking;
pub mod retrieval;
pub mod tta;

pub use collapse::{Collapse, collapse, collapse_warning};
pub use features::Features;
pub use geometry::Geometry;
pub use lidar::lidar;
pub use measured::{Measured, measure_photos};
pub use measurement::{Measurement, Subject, measure};
pub use neighbors::{Metric, Neighbor, nearest};
pub use panel::{Panel, panel, panel_train_test};
pub use retrieval::{Knn, Protocol, instance_discrimination, knn, knn_leave_one_out};
