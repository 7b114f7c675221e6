"""The networks whose weights Keras publishes, and weights files in the format in which Keras published them."""

import warnings

import keras

# name: (function, module with `preprocess_input`, published parameters without the top) of keras.applications
FAMILIES = {
    "mobilenetv2": (keras.applications.MobileNetV2, keras.applications.mobilenet_v2, 2_257_984),
    "mobilenetv3_small": (keras.applications.MobileNetV3Small, keras.applications.mobilenet_v3, 939_120),
    "mobilenetv3_large": (keras.applications.MobileNetV3Large, keras.applications.mobilenet_v3, 2_996_352),
    "efficientnetv2_b0": (keras.applications.EfficientNetV2B0, keras.applications.efficientnet_v2, 5_919_312),
    "efficientnetv2_b1": (keras.applications.EfficientNetV2B1, keras.applications.efficientnet_v2, 6_931_124),
    "efficientnetv2_b2": (keras.applications.EfficientNetV2B2, keras.applications.efficientnet_v2, 8_769_374),
    "efficientnetv2_b3": (keras.applications.EfficientNetV2B3, keras.applications.efficientnet_v2, 12_930_622),
    "resnet50v2": (keras.applications.ResNet50V2, keras.applications.resnet_v2, 23_564_800),
    "inceptionv3": (keras.applications.InceptionV3, keras.applications.inception_v3, 21_802_784),
    "convnext_tiny": (keras.applications.ConvNeXtTiny, keras.applications.convnext, 27_820_128),
}


def publish(path, model):
    """Write a model's weights as Keras published them: an .h5 file in the format before Keras 3."""
    import h5py
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's, about how Keras copies TensorFlow's variables
        save_weights_to_hdf5_group(file, model)
    return path
