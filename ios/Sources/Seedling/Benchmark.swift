import SeedlingBridge

/// Measures a step of training for every network, size of views and budget of memory, `seconds` each: some
/// minutes. Returns JSON to be shared, which `seedling bench --table FILE` prints as a table; `device` is its
/// title. Canceling the task ends it within a step.
public func benchmark(device: String, seconds: Double = 5, threads: Int = 0) async throws -> String {
    try await stoppable { stop in
        try SeedlingBridge.benchmark(
            device: device, seconds: seconds, threads: Int32(clamping: threads), stop: stop)
    }
}
