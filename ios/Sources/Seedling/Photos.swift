import Foundation
import SeedlingBridge

/// A list of photos that only grows. A name tells one from the others: a session that continues after the
/// app died asks for the same names in the same order.
public final class Photos: Sendable {
    let inner = SeedlingBridge.Photos()

    /// None yet.
    public init() {}

    /// How many there are.
    public var count: Int { Int(inner.count()) }

    /// A file that is read whenever it is needed; one that is no photo, or vanishes, is skipped. Its
    /// path is its name unless there is another.
    @discardableResult
    public func add(_ file: URL, name: String? = nil) throws(SeedlingError) -> Photos {
        try typed { try inner.addFile(name: name ?? file.path, path: file.path) }
        return self
    }

    /// A whole encoded picture, kept in memory.
    @discardableResult
    public func add(name: String, encoded: Data) throws(SeedlingError) -> Photos {
        try typed { try inner.addEncoded(name: name, bytes: encoded) }
        return self
    }

    /// Pixels R, G, B, A that the platform has decoded, upright, row after row. They are read where they
    /// lie, and kept reduced to 320 pixels.
    @discardableResult
    public func add(name: String, width: Int, height: Int, rgba: Data) throws(SeedlingError) -> Photos {
        try typed {
            try inner.addPixels(
                name: name, width: Int32(clamping: width), height: Int32(clamping: height), rgba: rgba)
        }
        return self
    }

    /// Says what class a photo is of, for ``evaluate(_:with:threads:onProgress:)``. Training never looks
    /// at it.
    @discardableResult
    public func label(_ name: String, className: String) throws(SeedlingError) -> Photos {
        try typed { try inner.label(name: name, className: className) }
        return self
    }
}
