import Foundation
import SeedlingBridge

/// `work` on a thread of its own: it takes minutes, which the threads of Swift's concurrency must not
/// be kept from others for. Where the task is canceled meanwhile, `ask` is called, and `work` ends soon.
func untilCancelled<T: Sendable>(
    ask: @escaping @Sendable () -> Void, work: @escaping @Sendable () throws -> T
) async throws -> T {
    let result = await withTaskCancellationHandler {
        await Result(catching: { try await onThread(work) })
    } onCancel: {
        ask()
    }
    try Task.checkCancellation()
    return try result.get()
}

/// `work` on a thread of its own, to its end.
func onThread<T: Sendable>(_ work: @escaping @Sendable () throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { (waiting: CheckedContinuation<T, any Error>) in
        let thread = Thread { waiting.resume(with: Result(catching: work)) }
        thread.name = "seedling"
        thread.qualityOfService = .utility
        thread.start()
    }
}

extension Result where Failure == any Error {
    init(catching work: () async throws -> Success) async {
        do { self = .success(try await work()) } catch { self = .failure(error) }
    }
}

/// The same for work that is ended by a `Stop`.
func stoppable<T: Sendable>(_ work: @escaping @Sendable (Stop) throws -> T) async throws -> T {
    let stop = Stop()
    return try await untilCancelled(ask: { stop.cancel() }, work: { try work(stop) })
}

/// A listener that calls closures.
final class Heard: Listener {
    private let onProgress: @Sendable (Progress) throws -> Void
    private let onWarning: @Sendable (String) throws -> Void

    init(
        _ onProgress: @escaping @Sendable (Progress) throws -> Void,
        _ onWarning: @escaping @Sendable (String) throws -> Void = { _ in }
    ) {
        self.onProgress = onProgress
        self.onWarning = onWarning
    }

    func progress(progress: Progress) throws { try forwarded { try onProgress(progress) } }

    func warning(text: String) throws { try forwarded { try onWarning(text) } }

    /// The library understands one kind of error from a listener.
    private func forwarded(_ call: () throws -> Void) throws {
        do { try call() } catch { throw ListenerError.Failed(reason: "\(error)") }
    }
}
