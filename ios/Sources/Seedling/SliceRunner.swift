import Foundation

/// A piece of time that the system grants: a `BGProcessingTask`, or whatever stands for one.
public protocol Slice: Sendable {
    /// `handler` is called when the time is over before ``complete(success:)``.
    func whenExpired(_ handler: @escaping @Sendable () -> Void)

    /// Says that no more time is needed.
    func complete(success: Bool)
}

/// Trains in the slices that the system grants, across launches of the app.
public struct SliceRunner: Sendable {
    private let storage: URL
    private let open: @Sendable () async throws -> Session
    private let sensors: (any Sensors)?
    private let rules: Rules
    /// Free bytes below which nothing is begun: two checkpoints and the weights.
    private let leastFree: Int64

    /// `open` opens the session, its photos and weights anew for every slice: grants may have changed.
    public init(
        storage: URL, sensors: (any Sensors)? = nil, rules: Rules = .usual, leastFree: Int64 = 200_000_000,
        open: @escaping @Sendable () async throws -> Session
    ) {
        self.storage = storage
        self.open = open
        self.sensors = sensors
        self.rules = rules
        self.leastFree = leastFree
    }

    /// Trains until the run is done, the slice expires or the task is cancelled, or the governor stops it,
    /// and says to the slice that it is over. What was trained is saved by then, and ``SliceLog`` says how it ended. Returns
    /// whether more slices are needed.
    public func run(_ slice: some Slice) async -> Bool {
        try? FileManager.default.createDirectory(at: storage, withIntermediateDirectories: true)
        let log = SliceLog(storage: storage)
        log.begin()
        let training = Task { try await train() }
        slice.whenExpired { training.cancel() }
        do {
            let outcome = try await withTaskCancellationHandler {
                try await training.value
            } onCancel: {
                training.cancel()
            }
            log.add(name(outcome), "")
            slice.complete(success: true)
            return outcome != .done
        } catch is CancellationError {
            log.add("paused", "the time granted was over")
            slice.complete(success: true)
            return true
        } catch {
            log.add("failed", "\(error)")
            slice.complete(success: false)
            // A full disk may have room tomorrow; photos and weights don't mend themselves.
            if case SeedlingError.Storage = error { return true }
            return false
        }
    }

    private func train() async throws -> Outcome {
        let values = try? storage.resourceValues(forKeys: [.volumeAvailableCapacityKey])
        if let free = values?.volumeAvailableCapacity, Int64(free) < leastFree {
            throw SeedlingError.Storage(
                reason: "\(free / 1_000_000) MB are free, \(leastFree / 1_000_000) are needed")
        }
        let session = try await open()
        let result = await Result(catching: { try await session.train(sensors: sensors, rules: rules) })
        // Unstructured: a cancelled task has to save, too.
        try await Task { try await session.close() }.value
        return try result.get()
    }

    private func name(_ outcome: Outcome) -> String {
        switch outcome {
        case .done: "done"
        case .paused: "paused"
        case .stopped(let reason): "\(reason)"
        }
    }
}

extension Result where Failure == any Error {
    fileprivate init(catching work: () async throws -> Success) async {
        do { self = .success(try await work()) } catch { self = .failure(error) }
    }
}
