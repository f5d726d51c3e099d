#if canImport(Darwin)
    import Foundation
    #if canImport(UIKit)
        import UIKit
    #endif

    /// The sensors of an iPhone, iPad or Mac. Memory is what the process has come to hold since this was
    /// made: what the app held before is its own affair.
    public final class DeviceSensors: Sensors {
        private let before: Double?

        /// Begins to watch the battery. On the main thread.
        @MainActor public init() {
            #if os(iOS)
                UIDevice.current.isBatteryMonitoringEnabled = true
            #endif
            before = Self.footprint()
        }

        public func read() throws -> Readings {
            let (battery, charging) = Self.power()
            let process = ProcessInfo.processInfo
            return Readings(
                seconds: process.systemUptime,
                heat: Self.heat(process.thermalState),
                battery: battery,
                charging: charging,
                lowPower: process.isLowPowerModeEnabled,
                memoryMb: Self.footprint().flatMap { now in before.map { max(now - $0, 0) } })
        }

        private static func heat(_ state: ProcessInfo.ThermalState) -> Double? {
            switch state {
            case .nominal: 0.4
            case .fair: 0.7
            case .serious: 0.9
            case .critical: 1
            @unknown default: nil
            }
        }

        /// Charge and whether it grows; a Mac is taken to be plugged in.
        private static func power() -> (Double?, Bool?) {
            #if os(iOS)
                // UIDevice belongs to the main thread; training waits a moment for it.
                return DispatchQueue.main.sync {
                    MainActor.assumeIsolated {
                        let device = UIDevice.current
                        let level = Double(device.batteryLevel)
                        return switch device.batteryState {
                        case .charging, .full: (level, true)
                        case .unplugged: (level, false)
                        default: (nil, nil)
                        }
                    }
                }
            #else
                return (nil, true)
            #endif
        }

        /// Megabytes by which the system judges the process.
        private static func footprint() -> Double? {
            var info = task_vm_info_data_t()
            var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size)
            let result = withUnsafeMutablePointer(to: &info) { pointer in
                pointer.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
                    task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
                }
            }
            return result == KERN_SUCCESS ? Double(info.phys_footprint) / 1_048_576 : nil
        }
    }
#endif
