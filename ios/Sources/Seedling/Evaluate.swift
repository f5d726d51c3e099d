import SeedlingBridge

/// Figures of some weights on some photos. What there are too few photos for is `nil`.
public typealias Evaluation = SeedlingBridge.Evaluation

/// Measures `weights` on `photos`: how surely neighbors name a photo's class where
/// ``Photos/label(_:className:)`` has told all classes, and figures that need none. Canceling the task ends it
/// within a few photos.
public func evaluate(
    _ photos: Photos, with weights: Weights, threads: Int = 0,
    onProgress: @escaping @Sendable (Progress) throws -> Void = { _ in }
) async throws -> Evaluation {
    try await stoppable { stop in
        try SeedlingBridge.evaluate(
            weights: weights.inner, photos: photos.inner, threads: Int32(clamping: threads),
            listener: Heard(onProgress), stop: stop)
    }
}
