"""The container image, made without a container engine and without a base image.

    platforms, origin   for which processor, from which commit
    binary, elf         the static release binary, without a path of the machine that built it
    debian, certificates, crates, sbom
                        what else goes in, and the list of all that did
    contents            every file of the image: nothing else is in it
    layer, layout, archive
                        the same contents give the same bytes, and so the same digest
    unpack, verify      what was written is read back and run
"""
