/* keeps the room's library from being empty until its first file is there */
typedef int trmi_parallel_room;
