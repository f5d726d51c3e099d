import Seedling
import SwiftUI

@main
struct SampleApp: App {
    @StateObject private var model = Model()
    @Environment(\.scenePhase) private var phase
    private static let nights = BackgroundTraining(
        identifier: "io.seedling.sample.training", runner: Store.runner(sensors: DeviceSensors()))

    init() {
        Self.nights.register()
    }

    var body: some Scene {
        WindowGroup {
            TabView {
                PickScreen().tabItem { Label("Photos", systemImage: "photo.on.rectangle") }
                AdaptScreen().tabItem { Label("Adapt", systemImage: "wand.and.rays") }
                NeighborsScreen().tabItem { Label("Neighbors", systemImage: "square.grid.3x3") }
                KeepScreen().tabItem { Label("Keep", systemImage: "checkmark.seal") }
                StoredScreen().tabItem { Label("Stored", systemImage: "internaldrive") }
            }
            .environmentObject(model)
        }
        .onChange(of: phase) { phase in
            if phase == .background, !model.isDone { try? Self.nights.schedule() }
        }
    }
}
