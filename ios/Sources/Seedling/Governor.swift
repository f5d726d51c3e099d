import SeedlingBridge

/// What is allowed: memory, time at a time, heat, battery.
public typealias Rules = SeedlingBridge.Rules

/// What the sensors say at one moment. Whatever is not known stays empty.
public typealias Readings = SeedlingBridge.Readings

/// Reads the device's sensors, before every step. What it throws counts as knowing nothing.
public typealias Sensors = SeedlingBridge.Sensors

/// What to do now: run, rest between steps, or stop.
public typealias Decision = SeedlingBridge.Decision

/// Why training has to stop.
public typealias Reason = SeedlingBridge.Reason

extension Rules {
    /// The rules that suit most apps: 300 MB, nine minutes at a time, only while charging.
    public static var usual: Rules { usualRules() }
}

/// Whether training may continue now, for an app that has its own loop (``Session/step(onProgress:)``);
/// ``Session/train(sensors:rules:onProgress:onWarning:)`` has one of its own. A decision to stop stands:
/// whoever starts again begins with a new one.
public final class Governor: Sendable {
    private let inner: SeedlingBridge.Governor

    /// Before the first reading.
    public init(rules: Rules = .usual) {
        inner = SeedlingBridge.Governor(rules: rules)
    }

    /// What to do, seeing this. To be asked before the first step and after every one.
    public func decide(_ readings: Readings) -> Decision {
        inner.decide(readings: readings)
    }
}
