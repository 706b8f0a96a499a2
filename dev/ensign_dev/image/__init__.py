"""Builds the container image without a container engine and without a base image.

    platforms, origin   its platform and its commit
    binary, elf         the static release binary, free of paths of the build machine
    debian, certificates, crates, sbom
                        the other contents, and the SBOM
    contents            the complete list of files
    layer, layout, archive
                        reproducible output: the same contents give the same digest
    unpack, verify, reach
                        unpacks the result and runs it
"""
