import Foundation
import SeedlingBridge

/// How to train. What is not named here is `seedling adapt`'s.
public typealias Settings = SeedlingBridge.Settings

/// Why a run has returned: done, paused, or stopped by the governor for a reason.
public typealias Outcome = SeedlingBridge.Outcome

/// What a session takes.
public typealias Resources = SeedlingBridge.Resources

/// One run over one list of photos, in a folder of its own. It may be left at any moment, by a pause, a
/// canceled task or the death of the app, and continues where its last checkpoint was.
public actor Session {
    private nonisolated let inner: SeedlingBridge.Session

    /// A session in `folder`; one that was begun there before will be resumed. What it takes is
    /// predicted first: some tenths of a second.
    public init(
        folder: URL, weights: Weights, photos: Photos, settings: Settings = Settings()
    ) throws(SeedlingError) {
        inner = try typed {
            try SeedlingBridge.Session.open(
                folder: folder.path, weights: weights.inner, photos: photos.inner, settings: settings)
        }
    }

    /// Trains until all is done, ``pause()`` is called, or the governor stops it. Canceling the task
    /// pauses it: it ends within a micro-batch, with what was trained saved, and throws
    /// `CancellationError`. `onProgress` is called on the training thread, at most ten times a second;
    /// what it throws is dropped.
    public func train(
        sensors: (any Sensors)? = nil,
        rules: Rules = .usual,
        onProgress: @escaping @Sendable (Progress) throws -> Void = { _ in },
        onWarning: @escaping @Sendable (String) throws -> Void = { _ in }
    ) async throws -> Outcome {
        let (inner, turn) = (inner, inner.turn())
        return try await untilCancelled(ask: { self.pause() }) {
            let heard = Heard(onProgress, onWarning)
            return try inner.run(turn: turn, listener: heard, sensors: sensors, rules: rules)
        }
    }

    /// The same as a stream of progress, which trains while it is read; slow readers miss some. Leaving
    /// the loop pauses.
    public nonisolated func progress(
        sensors: (any Sensors)? = nil, rules: Rules = .usual
    ) -> AsyncThrowingStream<Progress, any Error> {
        AsyncThrowingStream(bufferingPolicy: .bufferingNewest(1)) { stream in
            let training = Task {
                do {
                    _ = try await self.train(sensors: sensors, rules: rules) { stream.yield($0) }
                    stream.finish()
                } catch {
                    stream.finish(throwing: error)
                }
            }
            stream.onTermination = { _ in training.cancel() }
        }
    }

    /// Does the next part only: a measurement, one step, or the end; says whether there is more. For an
    /// app with a loop of its own, and a ``Governor``.
    public func step(
        onProgress: @escaping @Sendable (Progress) throws -> Void = { _ in }
    ) async throws -> Bool {
        let (inner, turn) = (inner, inner.turn())
        return try await untilCancelled(ask: { self.pause() }) {
            try inner.step(turn: turn, listener: Heard(onProgress))
        }
    }

    /// Ends the run that is in progress within a micro-batch, with what was trained saved.
    public nonisolated func pause() {
        inner.pause()
    }

    /// The verdict, once the session is done.
    public nonisolated func verdict() throws(SeedlingError) -> Verdict? {
        try typed { try inner.verdict() }
    }

    /// Copies the weights that the verdict has kept to `file`.
    public nonisolated func export(to file: URL) throws(SeedlingError) {
        try typed { try inner.export(path: file.path) }
    }

    /// What training takes, and has taken.
    public nonisolated func resources() throws(SeedlingError) -> Resources {
        try typed { try inner.resources() }
    }

    /// Removes everything the session has written; the next run begins anew.
    public nonisolated func discard() throws(SeedlingError) {
        try typed { try inner.discard() }
    }

    /// Lets go of memory and folder; what was trained is saved. A run that is in progress is paused first.
    public func close() async throws {
        let inner = inner
        try await onThread { try inner.shut() }
    }
}
