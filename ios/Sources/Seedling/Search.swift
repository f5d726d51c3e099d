import Foundation
import SeedlingBridge

/// A photo that is like another, and how far it is.
public typealias Match = SeedlingBridge.Match

/// Photos by example, as some weights see them.
public final class Search: Sendable {
    private let inner: SeedlingBridge.Search

    private init(_ inner: SeedlingBridge.Search) { self.inner = inner }

    /// Extracts features of every photo, from `ttaViews` views each: 1, 2 (with its mirror image) or 8 (both at four
    /// sizes); 0 is 2 where the weights were fitted to an album. What was seen is kept in `store`, where there
    /// is one: extraction continues there after a stop or the death of the app. The features of `beside` stand
    /// beside those of `weights`. Canceling the task ends it within a few photos.
    public static func over(
        _ photos: Photos, with weights: Weights, threads: Int = 0, ttaViews: Int = 0, store: URL? = nil,
        beside: Weights? = nil, onProgress: @escaping @Sendable (Progress) throws -> Void = { _ in }
    ) async throws -> Search {
        try await stoppable { stop in
            Search(
                try SeedlingBridge.Search(
                    weights: weights.inner, photos: photos.inner,
                    settings: SearchSettings(
                        threads: Int32(clamping: threads), ttaViews: Int32(clamping: ttaViews), store: store?.path),
                    beside: beside?.inner, listener: Heard(onProgress), stop: stop))
        }
    }

    /// Searches `photos` from now on: extracts features of those that are new, and forgets those that are gone.
    /// A photo is known by its name. Canceling the task ends it within a few photos.
    public func refresh(
        _ photos: Photos, onProgress: @escaping @Sendable (Progress) throws -> Void = { _ in }
    ) async throws {
        let inner = inner
        try await stoppable { stop in
            try inner.refresh(photos: photos.inner, listener: Heard(onProgress), stop: stop)
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

    /// What is compared, of every photo, by its name.
    public func embeddings() -> [String: [Float]] {
        Dictionary(inner.embeddings().map { ($0.name, $0.values) }) { first, _ in first }
    }
}
