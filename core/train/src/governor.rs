//! Whether training may continue now: pure logic over what the platform reads off its sensors.
//!
//! It has no clock and no sensor of its own. What a platform cannot read it leaves out; a reading
//! that makes no sense counts as left out. A decision to stop stands: whoever starts again begins
//! with a new governor, so that a loose cable does not start and stop a phone all night.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What the sensors say at one moment. All of it is optional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Readings {
    /// Seconds on any clock that runs while training does.
    pub seconds: Option<f64>,
    /// How near the device is to being throttled: 0 is cool, 1 is throttled (Android's thermal
    /// headroom; on iOS 0.4, 0.7, 0.9 and 1 for nominal, fair, serious and critical).
    pub heat: Option<f64>,
    /// Charge of the battery, 0 to 1.
    pub battery: Option<f64>,
    /// Whether it is being charged.
    pub charging: Option<bool>,
    /// Whether the person asked the device to save power.
    pub low_power: Option<bool>,
    /// Megabytes that the process holds.
    pub memory_mb: Option<f64>,
}

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// Megabytes that the process may hold.
    pub memory_mb: f64,
    /// Seconds that may be worked at a time.
    pub slice_seconds: f64,
    /// Train only while the battery is being charged.
    pub charging_only: bool,
    /// Where not only then: the charge below which training stops on battery.
    pub least_battery: f64,
    /// Heat from which training rests between steps.
    pub slow_from: f64,
    /// Heat from which it stops.
    pub stop_from: f64,
    /// Seconds of being unplugged that a loose cable is forgiven.
    pub patience_seconds: f64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            memory_mb: 300.0,
            slice_seconds: 540.0,
            charging_only: true,
            least_battery: 0.3,
            slow_from: 0.75,
            stop_from: 0.95,
            patience_seconds: 10.0,
        }
    }
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// Take the next step.
    Run,
    /// Take it after resting: so many seconds for each second of work.
    Slow { rest: f64 },
    /// Save and stop.
    Stop(Reason),
}

/// Why training has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// More memory is held than is allowed.
    Memory,
    /// The device is too hot.
    Heat,
    /// The person asked it to save power.
    LowPower,
    /// It is not being charged.
    NotCharging,
    /// The battery is low.
    Battery,
    /// The time is used up.
    Slice,
}

/// The longest rest, in seconds for each second of work.
const LONGEST_REST: f64 = 3.0;
/// Seconds that a reading counts for where there is no clock.
const TICK: f64 = 1.0;

/// Decides from one reading to the next.
#[derive(Clone, Debug)]
pub struct Governor {
    rules: Rules,
    /// The clock at the last reading that had one.
    last: Option<f64>,
    /// Seconds worked.
    worked: f64,
    /// Seconds without power; they are forgotten as fast as they came.
    unplugged: f64,
    charging: Option<bool>,
    stopped: Option<Reason>,
}

impl Governor {
    /// Before the first reading.
    pub fn new(rules: Rules) -> Governor {
        Governor {
            rules,
            last: None,
            worked: 0.0,
            unplugged: 0.0,
            charging: None,
            stopped: None,
        }
    }

    /// Seconds worked so far, as far as the clock told.
    pub fn worked(&self) -> f64 {
        self.worked
    }

    /// What to do, seeing this. To be asked before the first step and after every one.
    pub fn decide(&mut self, readings: &Readings) -> Decision {
        let beginning = self.last.is_none() && self.worked == 0.0 && self.charging.is_none();
        let passed = self.passed(readings.seconds.filter(|s| s.is_finite()));
        self.charging = readings.charging.or(self.charging);
        // Whoever does not know is not being charged.
        let plugged = self.charging == Some(true);
        self.unplugged = match plugged {
            true => (self.unplugged - passed).max(0.0),
            false => self.unplugged + passed,
        };
        if self.stopped.is_none() {
            // Nothing is begun on a loose cable.
            let patient = match beginning {
                true => plugged,
                false => self.unplugged <= self.rules.patience_seconds,
            };
            self.stopped = self.reason(readings, Plug { plugged, patient });
        }
        if let Some(reason) = self.stopped {
            return Decision::Stop(reason);
        }
        let Rules {
            slow_from,
            stop_from,
            ..
        } = self.rules;
        match fraction(readings.heat, 10.0) {
            Some(heat) if heat >= slow_from => {
                let over = (heat - slow_from) / (stop_from - slow_from).max(f64::EPSILON);
                Decision::Slow {
                    rest: LONGEST_REST * over.clamp(0.1, 1.0),
                }
            }
            _ => Decision::Run,
        }
    }

    /// Seconds since the last reading. A clock that goes back, or stands, has passed none.
    fn passed(&mut self, seconds: Option<f64>) -> f64 {
        let passed = match (self.last, seconds) {
            (Some(last), Some(now)) => (now - last).max(0.0),
            (_, None) if self.last.is_none() => TICK,
            _ => 0.0,
        };
        self.last = seconds.or(self.last);
        self.worked += passed;
        passed
    }

    fn reason(&self, readings: &Readings, plug: Plug) -> Option<Reason> {
        let rules = &self.rules;
        let least = rules.least_battery;
        let held = readings.memory_mb.filter(|mb| mb.is_finite());
        if held.is_some_and(|mb| mb > rules.memory_mb) {
            Some(Reason::Memory)
        } else if fraction(readings.heat, 10.0).is_some_and(|heat| heat >= rules.stop_from) {
            Some(Reason::Heat)
        } else if readings.low_power == Some(true) {
            Some(Reason::LowPower)
        } else if rules.charging_only && !plug.patient {
            Some(Reason::NotCharging)
        } else if !plug.plugged && fraction(readings.battery, 1.0).is_some_and(|b| b < least) {
            Some(Reason::Battery)
        } else if self.worked >= rules.slice_seconds {
            Some(Reason::Slice)
        } else {
            None
        }
    }
}

/// How the device is charged.
struct Plug {
    plugged: bool,
    /// Whether it may continue without for a moment.
    patient: bool,
}

/// A reading from 0 to `most`; others make no sense.
fn fraction(reading: Option<f64>, most: f64) -> Option<f64> {
    reading.filter(|x| (0.0..=most).contains(x))
}

impl Reason {
    /// It in a word or two, for a log.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Memory => "memory",
            Reason::Heat => "heat",
            Reason::LowPower => "low power",
            Reason::NotCharging => "not charging",
            Reason::Battery => "battery",
            Reason::Slice => "slice",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Memory => "the memory allowed is used up",
            Reason::Heat => "the device is too hot",
            Reason::LowPower => "the device is saving power",
            Reason::NotCharging => "the device is not being charged",
            Reason::Battery => "the battery is low",
            Reason::Slice => "the time allowed is used up",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_base::rng::{Purpose, Rng};

    fn fine(seconds: f64) -> Readings {
        Readings {
            seconds: Some(seconds),
            heat: Some(0.4),
            battery: Some(0.9),
            charging: Some(true),
            low_power: Some(false),
            memory_mb: Some(200.0),
        }
    }

    /// The first decision that is none to run, and when.
    fn simulate(
        rules: Rules,
        trace: impl IntoIterator<Item = Readings>,
    ) -> Option<(usize, Reason)> {
        let mut governor = Governor::new(rules);
        let mut stops = trace.into_iter().enumerate().filter_map(|(at, readings)| {
            match governor.decide(&readings) {
                Decision::Stop(reason) => Some((at, reason)),
                _ => None,
            }
        });
        stops.next()
    }

    #[test]
    fn an_undisturbed_night_works_its_slices() {
        let night = (0..2000).map(|s| fine(f64::from(s)));
        assert_eq!(
            simulate(Rules::default(), night),
            Some((540, Reason::Slice))
        );
    }

    #[test]
    fn each_reading_stops_by_itself() {
        let rules = Rules::default();
        let with = |change: &dyn Fn(&mut Readings)| {
            let trace = (0..5).map(|s| {
                let mut readings = fine(f64::from(s));
                if s == 3 {
                    change(&mut readings);
                }
                readings
            });
            simulate(rules, trace)
        };
        assert_eq!(with(&|_| ()), None);
        assert_eq!(
            with(&|r| r.memory_mb = Some(301.0)),
            Some((3, Reason::Memory))
        );
        assert_eq!(with(&|r| r.heat = Some(0.95)), Some((3, Reason::Heat)));
        assert_eq!(
            with(&|r| r.low_power = Some(true)),
            Some((3, Reason::LowPower))
        );
        assert_eq!(with(&|r| r.battery = Some(0.05)), None);
        let on_battery = Readings {
            charging: Some(false),
            battery: Some(0.29),
            ..fine(0.0)
        };
        let any = Rules {
            charging_only: false,
            ..rules
        };
        assert_eq!(simulate(any, [on_battery]), Some((0, Reason::Battery)));
        assert_eq!(
            simulate(rules, [on_battery]),
            Some((0, Reason::NotCharging))
        );
        let full = Readings {
            battery: Some(0.31),
            ..on_battery
        };
        assert_eq!(simulate(any, [full; 3]), None);
    }

    #[test]
    fn heat_slows_before_it_stops() {
        let mut governor = Governor::new(Rules::default());
        let mut rest = |heat| {
            let readings = Readings {
                heat: Some(heat),
                ..fine(0.0)
            };
            match governor.decide(&readings) {
                Decision::Run => 0.0,
                Decision::Slow { rest } => rest,
                Decision::Stop(_) => f64::INFINITY,
            }
        };
        let rests: Vec<f64> = [0.0, 0.74, 0.75, 0.85, 0.94, 0.96, 0.1]
            .map(&mut rest)
            .into();
        assert_eq!(rests[..2], [0.0, 0.0]);
        assert!(rests[2] > 0.0 && rests[2] < rests[3] && rests[3] < rests[4]);
        assert!(rests[4] <= LONGEST_REST);
        // A decision to stop stands, however cool it gets.
        assert_eq!(rests[5..], [f64::INFINITY, f64::INFINITY]);
    }

    #[test]
    fn a_flapping_charger_is_forgiven_and_a_pulled_one_is_not() {
        let cable = |plugged: fn(u32) -> bool| {
            (0..500).map(move |s| Readings {
                charging: Some(plugged(s)),
                ..fine(f64::from(s))
            })
        };
        assert_eq!(simulate(Rules::default(), cable(|s| s % 2 == 0)), None);
        // Mostly unplugged is unplugged, however often it flaps.
        let mostly = simulate(Rules::default(), cable(|s| s % 4 == 0)).unwrap();
        assert_eq!(mostly.1, Reason::NotCharging);
        assert!(mostly.0 < 40);
        assert_eq!(
            simulate(Rules::default(), cable(|s| s < 100)),
            Some((110, Reason::NotCharging))
        );
        // It is not begun on a loose one.
        assert_eq!(
            simulate(Rules::default(), cable(|s| s > 0)),
            Some((0, Reason::NotCharging))
        );
    }

    #[test]
    fn sensors_that_say_nothing_decide_nothing() {
        let nothing = Readings::default();
        // Not even that it is charged: then it is not.
        assert_eq!(
            simulate(Rules::default(), [nothing]),
            Some((0, Reason::NotCharging))
        );
        let any = Rules {
            charging_only: false,
            ..Rules::default()
        };
        // Without a clock every reading counts as a second.
        assert_eq!(simulate(any, [nothing; 1000]), Some((539, Reason::Slice)));
        // What was known of the charger holds until it is known anew.
        let mute = (0..200).map(|s| Readings {
            charging: (s == 0).then_some(true),
            ..Readings {
                seconds: Some(f64::from(s)),
                ..nothing
            }
        });
        assert_eq!(simulate(Rules::default(), mute), None);
        for bad in [f64::NAN, f64::INFINITY, -1.0, 1e30] {
            let mad = Readings {
                heat: Some(bad),
                battery: Some(bad),
                memory_mb: Some(if bad > 0.0 && bad.is_finite() {
                    1.0
                } else {
                    bad
                }),
                ..fine(0.0)
            };
            assert_eq!(simulate(Rules::default(), [mad; 3]), None, "{bad}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_neither_ends_nor_extends_a_slice() {
        // Back by an hour in the middle: the time worked is what passed on either side.
        let clock = |s: u32| f64::from(s) - if s > 300 { 3600.0 } else { 0.0 };
        let trace = (0..2000).map(|s| fine(clock(s)));
        assert_eq!(
            simulate(Rules::default(), trace),
            Some((541, Reason::Slice))
        );
        // A leap ahead (the device slept) counts as worked: nothing tells them apart.
        let leap = (0..10).map(|s| fine(if s < 5 { f64::from(s) } else { 1e6 }));
        assert_eq!(simulate(Rules::default(), leap), Some((5, Reason::Slice)));
    }

    #[test]
    fn no_trace_whatever_brings_a_stopped_one_back() {
        let mut rng = Rng::new(5, Purpose::Init, 0, 0);
        for _ in 0..200 {
            let mut governor = Governor::new(Rules {
                charging_only: rng.chance(0.5),
                ..Rules::default()
            });
            let mut stopped = None;
            for _ in 0..300 {
                let mut number = || {
                    let x = f64::from(rng.normal());
                    rng.chance(0.8).then_some(match rng.below(12) {
                        0 => f64::NAN,
                        1 => f64::NEG_INFINITY,
                        2 => 1e9 * x,
                        _ => x.abs() * 0.3,
                    })
                };
                let readings = Readings {
                    seconds: number(),
                    heat: number(),
                    battery: number(),
                    memory_mb: number(),
                    charging: rng.chance(0.8).then_some(rng.chance(0.7)),
                    low_power: rng.chance(0.5).then_some(rng.chance(0.02)),
                };
                let decision = governor.decide(&readings);
                if let Decision::Slow { rest } = decision {
                    assert!(rest > 0.0 && rest <= LONGEST_REST);
                }
                if let Some(reason) = stopped {
                    assert_eq!(decision, Decision::Stop(reason));
                }
                if let Decision::Stop(reason) = decision {
                    stopped = Some(reason);
                }
                assert!(governor.worked() >= 0.0 && governor.worked().is_finite());
            }
        }
    }
}
