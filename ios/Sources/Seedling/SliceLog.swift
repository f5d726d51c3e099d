import Foundation

/// What became of the slices that a run was trained in: one JSON object a line, the latest few hundred.
/// For a developer who asks why nothing is learnt at night.
public struct SliceLog: Sendable {
    private static let kept = 500
    private let file: URL
    private let begun: URL

    /// One slice.
    public struct Entry: Codable, Equatable, Sendable {
        /// When it ended, in seconds since 1970.
        public let at: Double
        /// `done`, `paused`, `failed`, `killed`, or the governor's reason to stop.
        public let ended: String
        /// What there is to say about it.
        public let detail: String
    }

    /// The log in `storage`.
    public init(storage: URL) {
        file = storage.appendingPathComponent("slices.jsonl")
        begun = storage.appendingPathComponent("slice.begun")
    }

    /// All entries, the oldest first. Lines that a crash has cut short are left out.
    public func entries() -> [Entry] {
        let text = (try? String(contentsOf: file, encoding: .utf8)) ?? ""
        return text.split(separator: "\n").compactMap {
            try? JSONDecoder().decode(Entry.self, from: Data($0.utf8))
        }
    }

    /// A slice begins. One before it that has not ended was killed with its process.
    func begin() {
        if FileManager.default.fileExists(atPath: begun.path) {
            add("killed", "the process ended without a word")
        }
        try? Data().write(to: begun)
    }

    func add(_ ended: String, _ detail: String) {
        try? FileManager.default.removeItem(at: begun)
        let entry = Entry(at: Date().timeIntervalSince1970, ended: ended, detail: detail)
        let lines = (entries() + [entry]).suffix(Self.kept).compactMap { try? JSONEncoder().encode($0) }
        // A log that can't be written is no reason to lose a night.
        try? Data(lines.joined(separator: Data("\n".utf8))).write(to: file, options: .atomic)
    }
}
