//! Whether training may continue now, by what the device's sensors say.

use crate::listener::ListenerError;
use seedling_core::governor::{self, Readings, Reason, Rules};
use std::sync::{Arc, Mutex, PoisonError};

/// Reads the device's sensors.
#[uniffi::export(with_foreign)]
pub trait Sensors: Send + Sync {
    /// What they say now; asked before every step. What it throws counts as knowing nothing.
    fn read(&self) -> Result<Readings, ListenerError>;
}

/// See [`seedling_core::governor::Readings`]. Whatever is not known stays empty.
#[uniffi::remote(Record)]
pub struct Readings {
    pub seconds: Option<f64>,
    pub heat: Option<f64>,
    pub battery: Option<f64>,
    pub charging: Option<bool>,
    pub low_power: Option<bool>,
    pub memory_mb: Option<f64>,
}

/// See [`seedling_core::governor::Rules`].
#[uniffi::remote(Record)]
pub struct Rules {
    pub memory_mb: f64,
    pub slice_seconds: f64,
    pub charging_only: bool,
    pub least_battery: f64,
    pub slow_from: f64,
    pub stop_from: f64,
    pub patience_seconds: f64,
}

/// See [`seedling_core::governor::Reason`].
#[uniffi::remote(Enum)]
pub enum Reason {
    Memory,
    Heat,
    LowPower,
    NotCharging,
    Battery,
    Slice,
}

/// The rules that suit most apps: 300 MB, nine minutes at a time, only while charging.
#[uniffi::export]
pub fn usual_rules() -> Rules {
    Rules::default()
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, uniffi::Enum)]
pub enum Decision {
    /// Take the next step.
    Run,
    /// Take it after resting: so many seconds for each second of work.
    Slow { rest: f64 },
    /// Save and stop.
    Stop { reason: Reason },
}

/// The governor for an app that has its own loop ([`crate::Session::step`]); [`crate::Session::run`] has
/// one of its own. A decision to stop stands: whoever starts again begins with a new one.
#[derive(uniffi::Object)]
pub struct Governor {
    inner: Mutex<governor::Governor>,
}

#[uniffi::export]
impl Governor {
    /// Before the first reading.
    #[uniffi::constructor]
    pub fn new(rules: Rules) -> Arc<Governor> {
        Arc::new(Governor {
            inner: Mutex::new(governor::Governor::new(rules)),
        })
    }

    /// What to do, seeing this. To be asked before the first step and after every one. Returns at once.
    pub fn decide(&self, readings: Readings) -> Decision {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match inner.decide(&readings) {
            governor::Decision::Run => Decision::Run,
            governor::Decision::Slow { rest } => Decision::Slow { rest },
            governor::Decision::Stop(reason) => Decision::Stop { reason },
        }
    }
}
