import Foundation
import SeedlingBridge

/// Which photos a run is over, remembered from its first slice to its last. Between two slices a photo may
/// be deleted or its grant taken back: then it is skipped, and the run continues with the others, which a
/// list that had changed would not let it.
public struct Album: Sendable {
    private let slices: SeedlingBridge.Slices

    /// The album that is remembered in `storage`, the folder that the session has its own in.
    public init(storage: URL) {
        slices = SeedlingBridge.Slices(folder: storage.path)
    }

    /// The names it was begun with; those of `current` where it has not begun.
    public func names(current: () async throws -> [String]) async throws -> [String] {
        if let known = try slices.names() { return known }
        let names = try await current()
        try slices.remember(names: names)
        return names
    }

    /// Its photos, in their order. `add` hands one over by its name, and returns whether it could; one
    /// that is gone keeps its place.
    public func photos(
        current: () async throws -> [String], add: (Photos, String) async throws -> Bool
    ) async throws -> Photos {
        let photos = Photos()
        for name in try await names(current: current) {
            try Task.checkCancellation()
            if try await !add(photos, name) {
                try photos.add(URL(fileURLWithPath: "/photo/that/is/gone"), name: name)
            }
        }
        return photos
    }

    /// Forgets it: the next run is over the photos there are then.
    public func forget() throws {
        try slices.forget()
    }
}
