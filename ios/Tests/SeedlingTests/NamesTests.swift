import Foundation
import XCTest

/// The public symbols of this library, as the compiler lists them, against the table of names.
final class NamesTests: XCTestCase {
    private struct Graph: Decodable {
        struct Symbol: Decodable {
            struct Kind: Decodable { let identifier: String }
            struct Identifier: Decodable { let precise: String }
            let kind: Kind
            let identifier: Identifier
            let pathComponents: [String]
        }
        let symbols: [Symbol]
    }

    private let project = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    /// Types with the names of their members; without those that only Apple's systems compile.
    private func table() throws -> [String: Set<String>] {
        let text = try String(contentsOf: project.appendingPathComponent("mobile-ffi/names.tsv"), encoding: .utf8)
        let apple = project.appendingPathComponent("ios/Sources/Seedling/Apple")
        var found: [String: Set<String>] = [:]
        var type: String?
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            let cells = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
            if !cells[0].isEmpty {
                let elsewhere = FileManager.default.fileExists(atPath: apple.appendingPathComponent(cells[3]).path)
                type = cells[3].hasSuffix(".swift") && !elsewhere ? cells[0] : nil
                if let type { found[type] = [] }
            } else if let type, cells[3] != "-" {
                found[type]?.formUnion(cells[3].components(separatedBy: ", "))
            }
        }
        return found
    }

    func testPublicNamesAreThoseOfTheTable() throws {
        let folder = try XCTUnwrap(ProcessInfo.processInfo.environment["SEEDLING_SYMBOLS"], "where the compiler lists symbols")
        // The second one has what is added to the types that come from Rust.
        let files = ["Seedling.symbols.json", "Seedling@SeedlingBridge.symbols.json"]
            .map { URL(fileURLWithPath: folder).appendingPathComponent($0) }
        let symbols = try files.flatMap { try JSONDecoder().decode(Graph.self, from: Data(contentsOf: $0)).symbols }
        let types = ["swift.class", "swift.struct", "swift.enum", "swift.protocol", "swift.typealias"]
        let declared = symbols.filter { $0.pathComponents.count == 1 && types.contains($0.kind.identifier) }
        let listed = try table()
        XCTAssertEqual(Set(declared.map { $0.pathComponents[0] }), Set(listed.keys))

        for (type, members) in listed where !members.isEmpty {
            let own = symbols.filter {
                $0.pathComponents.count == 2 && $0.pathComponents[0] == type
                    && !$0.identifier.precise.contains("::SYNTHESIZED::") && $0.kind.identifier != "swift.deinit"
            }
            let names = own.map { String($0.pathComponents[1].prefix { $0 != "(" }) }
            XCTAssertEqual(Set(names), members, type)
        }
    }
}
