#!/bin/sh
# rustc of a room, by the room's own loader; so it does not find its libraries by itself.
#
# usage: RUST=ROOM rustc.sh ARGUMENT...
libraries=$RUST/usr/lib/x86_64-linux-gnu
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$RUST/usr/bin/rustc" --sysroot "$RUST/usr" "$@"
