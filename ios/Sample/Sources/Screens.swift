import Photos
import Seedling
import SwiftUI

/// 1. Which photos.
struct PickScreen: View {
    @EnvironmentObject private var model: Model

    var body: some View {
        Screen(title: "Photos") {
            Text("The model learns from your photos, on this device. They never leave it, and are not changed.")
            Button("Choose photos") { model.choose() }.buttonStyle(.borderedProminent)
            switch model.access {
            case .all: Text("All photos may be used: the newest \(model.found).")
            case .chosen: Text("\(model.found) photos that you have chosen may be used.")
            case .none: Text("No photo may be used yet.")
            }
        }
    }
}

/// 2. Learning, with its progress.
struct AdaptScreen: View {
    @EnvironmentObject private var model: Model

    var body: some View {
        Screen(title: "Adapt") {
            if let progress = model.progress {
                ProgressView(value: Double(progress.done), total: Double(max(progress.total, 1)))
                Text("\(String(describing: progress.stage)): \(progress.done) of \(progress.total)")
                if let loss = progress.loss { Text("Loss \(loss, specifier: "%.3f")") }
            } else {
                Text("Takes some minutes. It can be left at any moment, and continues at night while charging.")
            }
            Button(model.isBusy ? "Pause" : "Adapt") { model.isBusy ? model.pause() : model.adapt() }
                .buttonStyle(.borderedProminent)
        }
    }
}

/// 3. What the model finds alike, before and after.
struct NeighborsScreen: View {
    @EnvironmentObject private var model: Model

    var body: some View {
        Screen(title: "Neighbors") {
            Button("Compare") { model.compare() }.buttonStyle(.borderedProminent).disabled(!model.isDone)
            ForEach(model.neighbors, id: \.example) { row in
                Thumbnails(label: "Like this", names: [row.example])
                Thumbnails(label: "Before", names: row.before)
                Thumbnails(label: "After", names: row.after)
                Divider()
            }
        }
    }
}

/// 4. The verdict, and what to do with the result.
struct KeepScreen: View {
    @EnvironmentObject private var model: Model

    var body: some View {
        Screen(title: "Keep or discard") {
            Text(model.verdict?.sentence ?? "There is no result yet.")
            Button("Keep") { model.keep() }.buttonStyle(.borderedProminent).disabled(!model.isDone)
            Button("Discard", role: .destructive) { model.discard() }
        }
    }
}

/// 5. What is stored, how to delete it, and how fast the device is.
struct StoredScreen: View {
    @EnvironmentObject private var model: Model

    var body: some View {
        Screen(title: "Stored") {
            ForEach(model.stored, id: \.name) { file in
                HStack {
                    Text(file.name)
                    Spacer()
                    Text(ByteCountFormatter.string(fromByteCount: Int64(file.bytes), countStyle: .file))
                }
            }
            Button("Delete everything", role: .destructive) { model.delete() }
            Divider()
            Button("Measure this device") { model.measure() }
            if let benchmark = model.benchmark {
                ShareLink("Share the figures", item: benchmark)
            }
        }
        .onAppear { model.refresh() }
    }
}

/// A screen with its title, what went wrong, and whether something is in progress.
private struct Screen<Content: View>: View {
    let title: String
    @ViewBuilder let content: Content
    @EnvironmentObject private var model: Model

    var body: some View {
        NavigationStack {
            ScrollView {
                VStack(alignment: .leading, spacing: 16) {
                    content
                    if model.isBusy { ProgressView() }
                    if !model.message.isEmpty { Text(model.message).foregroundStyle(.secondary) }
                }
                .frame(maxWidth: .infinity, alignment: .leading)
                .padding()
            }
            .navigationTitle(title)
        }
    }
}

/// Small pictures of photos, by their identifiers.
private struct Thumbnails: View {
    let label: String
    let names: [String]

    var body: some View {
        VStack(alignment: .leading) {
            Text(label).font(.caption)
            HStack { ForEach(names, id: \.self) { Thumbnail(name: $0) } }
        }
    }
}

private struct Thumbnail: View {
    let name: String
    @State private var image: UIImage?

    var body: some View {
        Group {
            if let image { Image(uiImage: image).resizable().scaledToFill() } else { Color.secondary.opacity(0.2) }
        }
        .frame(width: 60, height: 60)
        .clipped()
        .task {
            let asset = PHAsset.fetchAssets(withLocalIdentifiers: [name], options: nil).firstObject
            guard let asset else { return }
            let options = PHImageRequestOptions()
            options.isNetworkAccessAllowed = false
            PHImageManager.default().requestImage(
                for: asset, targetSize: CGSize(width: 180, height: 180), contentMode: .aspectFill, options: options
            ) { found, _ in
                Task { @MainActor in image = found }
            }
        }
    }
}
