import Foundation
import SeedlingBridge

/// A photo that is like another, and how far it is.
public typealias Match = SeedlingBridge.Match

/// Photos by example, as some weights see them.
public final class Search: Sendable {
    private let inner: SeedlingBridge.Search

    private init(_ inner: SeedlingBridge.Search) { self.inner = inner }

    /// Looks at every photo once. Cancelling the task ends it within a few photos.
    public static func over(
        _ photos: Photos, with weights: Weights, threads: Int = 0,
        onProgress: @escaping @Sendable (Progress) throws -> Void = { _ in }
    ) async throws -> Search {
        try await stoppable { stop in
            Search(
                try SeedlingBridge.Search(
                    weights: weights.inner, photos: photos.inner, threads: Int32(clamping: threads),
                    listener: Heard(onProgress), stop: stop))
        }
    }

    /// Photos that could not be read, and are not among the matches.
    public var unreadable: Int { Int(inner.unreadable()) }

    /// The `count` photos most like the one of that name, nearest first.
    public func like(_ name: String, count: Int) -> [Match] {
        inner.like(name: name, count: Int32(clamping: count))
    }

    /// The same for a picture that need not be among the photos.
    public func like(encoded: Data, count: Int) async throws -> [Match] {
        let inner = inner
        return try await untilCancelled(ask: {}) {
            try inner.likeEncoded(bytes: encoded, count: Int32(clamping: count))
        }
    }

    /// What the weights see in every photo, by its name.
    public func embeddings() -> [String: [Float]] {
        Dictionary(inner.embeddings().map { ($0.name, $0.values) }) { first, _ in first }
    }
}
