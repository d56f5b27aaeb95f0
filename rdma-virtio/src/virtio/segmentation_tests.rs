//! Tests of software segmentation, against a naive segmenter.
