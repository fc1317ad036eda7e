#!/bin/sh
# usage: carry.sh OUT. Collects what Trireme builds and runs with into OUT/deps.tar.gz and OUT/unpack.sh, and ONNX's test
# data into OUT/onnx-data.tar.xz, for a CUDA machine (Ubuntu 24.04 or newer, amd64) that has a compiler, CMake and ninja
# and no network. Run on Debian 12 as root after apt-get update (needs patchelf, and libonnx-testdata for the data;
# downloads go to a scratch folder, nothing is installed). There:   sh OUT/unpack.sh PREFIX && . PREFIX/env.sh
# CARRY="openmpi zmq ..." chooses the parts (default: all).
set -eu
out=${1:?usage: carry.sh OUT}
: "${CARRY:=openmpi zmq yaml check dnnl msgpack jansson images text http terminal pkgconf}"
command -v patchelf >/dev/null || { echo "carry.sh: needs patchelf" >&2; exit 1; }

# What a part needs beyond libc, libstdc++, libgcc, libgomp, libm and zlib, which every CUDA machine with a compiler has.
# Open MPI's InfiniBand, Omni-Path, UCX and libfabric transports are left out, with the plug-ins that need them.
part_packages() {
    case $1 in
    openmpi) echo libopenmpi-dev openmpi-bin openmpi-common libopenmpi3 libhwloc15 libevent-core-2.1-7 \
        libevent-pthreads-2.1-7 libpmix2 libmunge2 libudev1 ;;
    zmq) echo libzmq3-dev libzmq5 libsodium23 libnorm1 libpgm-5.3-0 libbsd0 libmd0 libgssapi-krb5-2 libkrb5-3 \
        libk5crypto3 libkrb5support0 libkeyutils1 libcom-err2 ;;
    yaml) echo libyaml-dev libyaml-0-2 ;;
    check) echo check libsubunit-dev libsubunit0 ;;
    dnnl) echo libdnnl-dev libdnnl2 ocl-icd-libopencl1 ;;
    msgpack) echo libmsgpack-dev libmsgpackc2 ;;
    jansson) echo libjansson-dev libjansson4 ;;
    images) echo libpng-dev libpng16-16 libjpeg62-turbo-dev libjpeg62-turbo zlib1g-dev zlib1g ;;
    text) echo libpcre2-dev libpcre2-8-0 libutf8proc-dev libutf8proc2 ;;
    http) echo libmicrohttpd-dev libmicrohttpd12 libgnutls28-dev libgnutls30 libcurl4-gnutls-dev libcurl3-gnutls libbrotli1 \
        libcom-err2 libffi8 libgmp10 libgssapi-krb5-2 libhogweed6 libidn2-0 libk5crypto3 libkeyutils1 libkrb5-3 \
        libkrb5support0 libldap-2.5-0 libnettle8 libnghttp2-14 libp11-kit0 libpsl5 librtmp1 libsasl2-2 libssh2-1 libssl3 \
        libtasn1-6 libunistring2 libzstd1 ;;
    terminal) echo libncurses-dev libncursesw6 libncurses6 libtinfo6 ;;
    pkgconf) echo pkgconf pkgconf-bin libpkgconf3 ;;
    *) echo "carry.sh: no part '$1'" >&2; exit 1 ;;
    esac
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/debs" "$work/p"
list=$(for p in $CARRY; do part_packages "$p"; done | tr ' ' '\n' | sort -u)
(cd "$work/debs" && apt-get -q -o APT::Sandbox::User=root download $list >/dev/null)
for d in "$work"/debs/*.deb; do dpkg -x "$d" "$work/p"; done

p=$work/p multi=usr/lib/x86_64-linux-gnu
lib=$p/$multi
if [ -d "$p/lib" ]; then cp -a "$p/lib/." "$p/usr/lib/"; rm -rf "${p:?}/lib"; fi
rm -rf "$p/usr/share/doc" "$p/usr/share/man" "$p/usr/share/info" "$p/usr/share/locale" "$p/usr/share/lintian" \
    "${p:?}/var" "$p/usr/lib/systemd" "$p/usr/share/doc-base" "$lib/fortran" "$lib/krb5"
# static libraries, but for check's, which its .pc file names; Fortran and Java
find "$p" -name '*.a' ! -name 'libcheck*' -delete
find "$p" \( -name '*mpifh*' -o -name '*usempi*' -o -name '*libmpi_java*' -o -name '*.mod' -o -name '*.jar' \) -delete
# .pc files: what only a static link needs is not carried
sed -i '/^Requires.private:/d' "$lib"/pkgconfig/*.pc
if [ -d "$lib/openmpi" ]; then # links that the packages' own scripts would set
    for x in mpirun mpiexec; do ln -sf orterun "$p/usr/bin/$x"; done
    ln -sf mpicc.openmpi "$p/usr/bin/mpicc"
    ln -sf ompi-c.pc "$lib/pkgconfig/mpi-c.pc" # the name CMake's FindMPI asks for
    sed -i 's#/openmpi/lib$##' "$lib"/pkgconfig/ompi*.pc # so that programs get a run path where libmpi.so.40 is
    for l in libmpi libopen-rte libopen-pal; do
        if [ -e "$lib/openmpi/lib/$l.so" ]; then ln -sf "openmpi/lib/$l.so" "$lib/$l.so"; fi
    done
fi
# every program and library finds its neighbours by itself: no LD_LIBRARY_PATH, which would reach the system's own tools
find "$p/usr" -type f \( -name '*.so*' -o -path '*/bin/*' \) | while read -r f; do
    head -c 4 "$f" | grep -q ELF || continue
    up=$(realpath --relative-to="$(dirname "$f")" "$lib")
    patchelf --set-rpath "\$ORIGIN:\$ORIGIN/$up:\$ORIGIN/$up/openmpi/lib" "$f" # the first for links to it in $lib
done
# plug-ins whose libraries are not carried, judged by the carried set and the machine's base libraries alone
base='lib(c|m|dl|rt|pthread|util|resolv|stdc\+\+|gcc_s|gomp|z|atomic)\.so|ld-linux|linux-vdso'
missing() { readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -Ev "^($base)" | while read -r n; do
    if [ ! -e "$lib/$n" ] && [ ! -e "$lib/openmpi/lib/$n" ]; then echo "$n"; fi; done; }
find "$p/usr" -name 'mca_*.so' -o -name 'libmca_common_*.so*' -o -name 'liboshmem*' | while read -r f; do
    if [ -f "$f" ] && [ -n "$(missing "$f")" ]; then rm -f "$f"; fi
done
find "$p/usr" -type f -name 'lib*.so*' | while read -r f; do
    for n in $(missing "$f"); do echo "carry.sh: ${f##*/} still lacks $n" >&2; done
done

(cd "$p" && tar -c . | gzip -9 >"$work/deps.tar.gz") && mv "$work/deps.tar.gz" "$out/"
data=/usr/include/onnx/backend/test/data
if [ -d "$data/node" ]; then tar -C "$data" -cJf "$out/onnx-data.tar.xz" node simple pytorch-converted pytorch-operator; fi
cat >"$out/unpack.sh" <<'EOF'
#!/bin/sh
# unpack.sh PREFIX - unpacks the carried libraries into PREFIX and writes PREFIX/env.sh, to be read with '.'
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
prefix=$(cd "$1" && pwd)
tar -xzf "$here/deps.tar.gz" -C "$prefix"
if [ -e "$here/onnx-data.tar.xz" ]; then mkdir -p "$prefix/onnx" && tar -xJf "$here/onnx-data.tar.xz" -C "$prefix/onnx"; fi
lib=$prefix/usr/lib/x86_64-linux-gnu
cat >"$prefix/env.sh" <<EOT
export TRM_ONNX_DATA="$prefix/onnx"
export PATH="$prefix/usr/bin:\$PATH"
export CMAKE_PREFIX_PATH="$prefix/usr\${CMAKE_PREFIX_PATH:+:\$CMAKE_PREFIX_PATH}"
export PKG_CONFIG_SYSROOT_DIR="$prefix" PKG_CONFIG_PATH="$lib/pkgconfig:$prefix/usr/share/pkgconfig"
export LDFLAGS="-Wl,-rpath-link,$lib -Wl,-rpath-link,$lib/openmpi/lib\${LDFLAGS:+ \$LDFLAGS}" # ld does not expand \$ORIGIN
export OPAL_PREFIX="$prefix/usr" OPAL_LIBDIR="$lib/openmpi/lib" OPAL_PKGLIBDIR="$lib/openmpi/lib/openmpi3"
export OPAL_INCLUDEDIR="$lib/openmpi/include" OPAL_PKGINCLUDEDIR="$lib/openmpi/include/openmpi"
export OPAL_PKGDATADIR="$prefix/usr/share/openmpi" OPAL_SYSCONFDIR="$prefix/etc/openmpi"
export PMIX_INSTALL_PREFIX="$lib/pmix2" PMIX_MCA_pcompress_base_silence_warning=1
export OMPI_MCA_plm=isolated OMPI_MCA_rmaps_base_oversubscribe=1 # one machine: no ssh, more ranks than cores
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
EOT
echo "unpacked: . $prefix/env.sh"
EOF
du -cb "$work"/debs/*.deb | awk -v n="$(ls "$work/debs" | wc -l)" 'END{printf "%d packages of %.1f MiB", n, $1/1048576}'
du -sm "$p" | awk '{printf ", unpacked %d MiB", $1}'
du -b "$out/deps.tar.gz" | awk '{printf ", carried as %.1f MiB\n", $1/1048576}'
