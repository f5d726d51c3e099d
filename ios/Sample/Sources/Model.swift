import Foundation
import Photos
import Seedling
import SwiftUI

/// What the screens show.
@MainActor
final class Model: ObservableObject {
    @Published var access = PhotoLibrary().access
    @Published var found = 0
    @Published var progress: Seedling.Progress?
    @Published var verdict: Verdict?
    @Published var message = ""
    @Published var neighbors: [(example: String, before: [String], after: [String])] = []
    @Published var stored: [(name: String, bytes: Int)] = []
    @Published var benchmark: String?
    @Published private(set) var isBusy = false
    private var work: Task<Void, Never>?

    var isDone: Bool { verdict != nil }

    /// Asks for photos, and counts them.
    func choose() {
        perform {
            self.access = await PhotoLibrary().ask()
            self.found = PhotoLibrary().names().count
        }
    }

    func adapt() {
        perform {
            let session = try await Store.open()
            for try await progress in session.progress() { self.progress = progress }
            self.verdict = try session.verdict()
            try await session.close()
        }
    }

    func pause() { work?.cancel() }

    /// The nearest photos of some, with the weights before and after.
    func compare() {
        perform {
            let photos = try await Store.photos()
            let before = try await Search.over(photos, with: Store.base())
            let weights = Store.session.appendingPathComponent("weights.safetensors")
            let after = try await Search.over(photos, with: .openOwn(weights))
            let examples = before.embeddings().keys.sorted().prefix(6)
            self.neighbors = examples.map { name in
                (name, before.like(name, count: 5).map(\.name), after.like(name, count: 5).map(\.name))
            }
        }
    }

    func keep() {
        perform {
            let session = try await Store.open()
            try session.export(to: Store.adapted)
            try await session.close()
            self.message = "Kept: \(Store.adapted.lastPathComponent)"
        }
    }

    func discard() {
        perform {
            let session = try await Store.open()
            try session.discard()
            try await session.close()
            try Album(storage: Store.folder).forget()
            self.verdict = nil
            self.progress = nil
            self.message = "Discarded"
        }
    }

    func refresh() { stored = Store.stored() }

    func delete() {
        perform {
            try Store.delete()
            self.verdict = nil
            self.refresh()
        }
    }

    /// Some minutes; the JSON is for `seedling bench --table`.
    func measure() {
        perform {
            let device = "\(UIDevice.current.model), iOS \(UIDevice.current.systemVersion)"
            self.benchmark = try await Seedling.benchmark(device: device, seconds: 5)
        }
    }

    private func perform(_ action: @escaping @MainActor () async throws -> Void) {
        guard !isBusy else { return }
        (isBusy, message) = (true, "")
        work = Task {
            do {
                try await action()
            } catch is CancellationError {
                message = "Paused: it continues from here."
            } catch {
                message = "\(error)"
            }
            isBusy = false
        }
    }
}
