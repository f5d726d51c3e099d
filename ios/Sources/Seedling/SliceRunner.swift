import Foundation
import SeedlingBridge

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
        storage: URL, sensors: (any Sensors)? = nil, rules: Rules = .usual, leastFree: Int64 = SeedlingBridge.leastFree(),
        open: @escaping @Sendable () async throws -> Session
    ) {
        self.storage = storage
        self.open = open
        self.sensors = sensors
        self.rules = rules
        self.leastFree = leastFree
    }

    /// Trains until the run is done, the slice expires or the task is canceled, or the governor stops it, and
    /// says to the slice that it is over. What was trained is saved by then, and ``SliceLog`` says how it
    /// ended. Returns whether more slices are needed.
    public func run(_ slice: some Slice) async -> Bool {
        try? FileManager.default.createDirectory(at: storage, withIntermediateDirectories: true)
        let slices = SeedlingBridge.Slices(folder: storage.path)
        let training = Task { try await train(slices) }
        slice.whenExpired { training.cancel() }
        do {
            let outcome = try await withTaskCancellationHandler {
                try await training.value
            } onCancel: {
                training.cancel()
            }
            let more = slices.ended(outcome: outcome)
            slice.complete(success: true)
            return more
        } catch is CancellationError {
            let more = slices.paused(detail: "the time granted was over")
            slice.complete(success: true)
            return more
        } catch {
            let storage = if case SeedlingError.Storage = error { true } else { false }
            let more = slices.failed(detail: "\(error)", storage: storage)
            slice.complete(success: false)
            return more
        }
    }

    private func train(_ slices: SeedlingBridge.Slices) async throws -> Outcome {
        let values = try? storage.resourceValues(forKeys: [.volumeAvailableCapacityKey])
        try slices.start(free: values?.volumeAvailableCapacity.map(Int64.init), least: leastFree)
        let session = try await open()
        let result = await Result(catching: { try await session.train(sensors: sensors, rules: rules) })
        // Unstructured: a canceled task has to save, too.
        try await Task { try await session.close() }.value
        return try result.get()
    }
}
