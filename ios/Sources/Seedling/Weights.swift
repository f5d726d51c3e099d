import Foundation
import SeedlingBridge

/// Weights to begin with, or to search by.
public final class Weights: Sendable {
    let inner: SeedlingBridge.Weights

    private init(_ inner: SeedlingBridge.Weights) { self.inner = inner }

    /// Weights that one of `keys` has signed, in the manifest beside them. What it takes back is
    /// remembered in `storage`.
    public static func open(_ file: URL, keys: [String], storage: URL) throws(SeedlingError) -> Weights {
        try typed {
            Weights(try SeedlingBridge.Weights.open(path: file.path, keys: keys, storage: storage.path))
        }
    }

    /// Weights that a ``Session`` of this app has exported.
    public static func openOwn(_ file: URL) throws(SeedlingError) -> Weights {
        try typed { Weights(try SeedlingBridge.Weights.openOwn(path: file.path)) }
    }

    /// The network they are for.
    public var arch: String { inner.arch() }

    /// Which release they are; 0 for weights of the app's own.
    public var version: Int { Int(inner.version()) }
}
