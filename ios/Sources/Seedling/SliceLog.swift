import Foundation
import SeedlingBridge

/// One slice: when it ended, how (`done`, `paused`, `failed`, `killed`, or the governor's reason), and more.
public typealias SliceEntry = SeedlingBridge.SliceEntry

/// What became of the slices that a run was trained in: one entry each, the latest few hundred. For a
/// developer who asks why nothing is learned at night.
public struct SliceLog: Sendable {
    private let slices: SeedlingBridge.Slices

    /// The log in `storage`.
    public init(storage: URL) {
        slices = SeedlingBridge.Slices(folder: storage.path)
    }

    /// All entries, the oldest first.
    public func entries() -> [SliceEntry] { slices.entries() }
}
