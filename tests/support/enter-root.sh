# ROOT ARGUMENT...: becomes the systemd of a root that is a mount by itself, with what that needs to be there. To be
# run as the first process of its own namespaces.
set -eu
cd "$1"
shift
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for at in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs $at; done
chmod 1777 tmp
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
mkdir -p .before
pivot_root . .before
umount -l .before
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd "$@"
