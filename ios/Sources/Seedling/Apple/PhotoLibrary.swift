#if canImport(Photos) && canImport(ImageIO)
    import CoreGraphics
    import Foundation
    import ImageIO
    import Photos

    /// The photo library of the device, as far as the person lets the app see it. Nothing is ever fetched
    /// from iCloud: a photo that is not on the device is left out.
    public struct PhotoLibrary: Sendable {
        /// What the app may see.
        public enum Access: Sendable {
            /// All photos.
            case all
            /// Those that the person has chosen.
            case chosen
            /// None.
            case none
        }

        /// The shorter side that photos are asked for at.
        private static let side = 320.0

        public init() {}

        /// What the app may see now. To be asked anew in every slice.
        public var access: Access { Self.access(PHPhotoLibrary.authorizationStatus(for: .readWrite)) }

        /// Asks the person, who is asked only once.
        public func ask() async -> Access {
            Self.access(await PHPhotoLibrary.requestAuthorization(for: .readWrite))
        }

        /// The newest `most` photos that the app may see, by their identifiers.
        public func names(most: Int = 500) -> [String] {
            let options = PHFetchOptions()
            options.sortDescriptors = [NSSortDescriptor(key: "creationDate", ascending: false)]
            options.fetchLimit = most
            var names: [String] = []
            PHAsset.fetchAssets(with: .image, options: options).enumerateObjects { asset, _, _ in
                names.append(asset.localIdentifier)
            }
            return names
        }

        /// Hands over the photo of that identifier, reduced. Returns whether it could: not where it was
        /// deleted, is no longer among those that the person has chosen, or lies in iCloud only.
        public func add(_ name: String, to photos: Photos) async throws -> Bool {
            guard let asset = PHAsset.fetchAssets(withLocalIdentifiers: [name], options: nil).firstObject,
                let data = await Self.encoded(asset), let (pixels, width, height) = Self.pixels(data)
            else { return false }
            try photos.add(name: name, width: width, height: height, rgba: pixels)
            return true
        }

        private static func access(_ status: PHAuthorizationStatus) -> Access {
            switch status {
            case .authorized: .all
            case .limited: .chosen
            default: .none
            }
        }

        private static func encoded(_ asset: PHAsset) async -> Data? {
            let options = PHImageRequestOptions()
            options.isNetworkAccessAllowed = false
            options.deliveryMode = .highQualityFormat
            options.version = .current
            return await withCheckedContinuation { waiting in
                PHImageManager.default().requestImageDataAndOrientation(for: asset, options: options) { data, _, _, _ in
                    waiting.resume(returning: data)
                }
            }
        }

        /// A picture of any format the system reads (HEIC among them), upright and reduced.
        static func pixels(_ encoded: Data) -> (Data, Int, Int)? {
            guard let source = CGImageSourceCreateWithData(encoded as CFData, nil),
                let about = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any],
                let wide = about[kCGImagePropertyPixelWidth] as? Double,
                let high = about[kCGImagePropertyPixelHeight] as? Double, wide > 0, high > 0
            else { return nil }
            let longest = max(wide, high) * min(1, side / min(wide, high))
            let options: [CFString: Any] = [
                kCGImageSourceCreateThumbnailFromImageAlways: true,
                kCGImageSourceCreateThumbnailWithTransform: true,
                kCGImageSourceThumbnailMaxPixelSize: Int(longest.rounded()),
            ]
            guard let image = CGImageSourceCreateThumbnailAtIndex(source, 0, options as CFDictionary),
                let colors = CGColorSpace(name: CGColorSpace.sRGB)
            else { return nil }
            let (width, height) = (image.width, image.height)
            var pixels = Data(count: width * height * 4)
            let drawn = pixels.withUnsafeMutableBytes { memory in
                let context = CGContext(
                    data: memory.baseAddress, width: width, height: height, bitsPerComponent: 8,
                    bytesPerRow: width * 4, space: colors, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
                context?.setFillColor(CGColor(red: 1, green: 1, blue: 1, alpha: 1))
                let all = CGRect(x: 0, y: 0, width: width, height: height)
                context?.fill(all)
                context?.draw(image, in: all)
                // What Core Graphics skips it may leave at nought; here it means transparent.
                for at in stride(from: 3, to: memory.count, by: 4) { memory[at] = 255 }
                return context != nil
            }
            return drawn ? (pixels, width, height) : nil
        }
    }
#endif
